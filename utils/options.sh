# shellcheck shell=bash disable=SC2034  # these variables are read by the recipe and utils/recipe.sh
# The options of every recipe. A run.sh sources this file, then sets its own options.
# `./run.sh --help` prints the comments on the right, so they are the documentation.

stage=1              # first stage to run
stop_stage=100       # last stage to run
skip_stages=         # stages to leave out, such as "3 5"
nj=                  # processes that prepare and dump; empty: one per core
train_nj=            # processes of a training on a CPU, which split each batch; empty: one per core (up to 4)
inference_nj=        # jobs that decode, each a part of every test set; empty: one per GPU, or core (up to 4)
ngpu=0               # GPUs of a machine to dump, train and decode on; 0: CPU
num_nodes=1          # machines to train on, each with ngpu GPUs (egs/README.md)
master_addr=         # HOST[:PORT] where they meet; empty: the first machine of Slurm's job step
datadir=data         # folder of prepared corpora (a relative path starts at the corpus' recipe)
dumpdir=dump         # folder of dumped 16 kHz audio and encoder states
expdir=exp           # folder of experiments
python=python3       # Python to use; python3 is that of tools/venv (or of $PAM_VENV)
scale=mini           # encoders, LLM and schedule: a file of conf/scale
llm=                 # LLM: a file of conf/llm; empty: the scale's
system=pam           # system to train: a file of conf/systems
seed=0               # seed of initialisation and of the order of training data
budget=short         # length of training: a name under `budgets` of the scale
feats=               # dumped: encoder states from disk; online: encoders run in training; empty: the scale's
warmup=              # warm-up of the adapters, ctc or none; empty: the scale's
max_bad=0.5%         # largest share of bad utterances in a set
min_seconds=         # drop shorter utterances of training and validation sets; test sets keep all
max_seconds=         # drop longer utterances of training and validation sets; test sets keep all
size=short           # size of the corpora: long is all, short a part, tiny is enough to try the stages
licence=             # licence of the corpus, for the card of an exported model (pam export)
train_args=          # further arguments, after those of --config, of pam.bin.train, such as "--set phases.llm.optim_conf.lr=1e-4"
decode_args=         # further arguments of pam.bin.decode, such as "--max_new_tokens 64"
metrics=meteor       # metrics of captions, with commas: meteor, meteor_1.5, cider, spice, sbert, fense
score_args=          # further arguments of pam.bin.score, such as "--sbert /data/paraphrase-mpnet-base-v2"
prompts=unseen       # prompts for decoding: unseen, plain, seen or train
train_sets=          # sets to train on
dev_sets=            # sets to validate on
test_sets=           # sets to decode and score
more_sets=           # further sets that this recipe can prepare, so that those lists may name them
corpora=             # corpora under egs/ whose sets are combined; empty: this recipe's own
expname=             # name of the experiment; empty: SYSTEM_SCALE[_LLM]_BUDGET_sSEED
analyse=false        # whether to analyse the model before the report (pam.bin.analyse; minutes)
html=true            # whether to write the report also as a page with all answers, report.html
inference_tag=       # name of the decoding; empty: greedy_PROMPTS
results=             # folder for a small result of each experiment; empty: none
