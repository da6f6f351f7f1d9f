# shellcheck shell=bash disable=SC2034  # these variables are read by the recipe and utils/recipe.sh
# The options of every recipe. A run.sh sources this file, then sets what is its own;
# `./run.sh --help` prints the comments on the right, so they are the documentation.

stage=1              # first stage to run
stop_stage=100       # last stage to run
skip_stages=         # stages to leave out, as in "3 5"
nj=2                 # processes that prepare and dump
inference_nj=1       # jobs that decode, each a part of every test set; one for every GPU at least
ngpu=0               # GPUs to dump, train and decode on; 0 is the CPU
datadir=data         # where corpora are prepared (relative: to the corpus' own folder)
dumpdir=dump         # where audio at 16 kHz and encoder states are dumped
expdir=exp           # where experiments are trained, decoded and reported
python=python3       # Python to use; python3 is that of tools/venv (or of $PAM_VENV)
scale=mini           # encoders, LLM and schedule: a file of conf/scale
llm=                 # LLM in the place of the scale's own: a file of conf/llm
system=pam           # what is trained: a file of conf/systems
seed=0               # of initialisation and of the order of training
budget=short         # length of training: a name under `budgets` of the scale
feats=               # dumped: encoder states from disk; online: encoders run; empty: as the scale says
warmup=              # warm-up of the adapters, ctc or none; empty: as the scale says
max_bad=0.5%         # share of unusable utterances of a set that is tolerated
min_seconds=         # of training and validation sets, drop shorter utterances; test sets keep all
max_seconds=         # of training and validation sets, drop longer utterances; test sets keep all
size=short           # of the corpora: long is all, short a part, tiny enough to try the stages
train_args=          # further arguments of pam.bin.train, as in "--set phases.llm.optim_conf.lr=1e-4"
decode_args=         # further arguments of pam.bin.decode, as in "--max_new_tokens 64"
metrics=meteor       # of captions, with commas: meteor, meteor_1.5, cider, spice, sbert, fense
score_args=          # further arguments of pam.bin.score, as in "--sbert /data/paraphrase-mpnet-base-v2"
prompts=unseen       # prompts the test sets are decoded with: unseen, plain, seen or train
train_sets=          # sets to train on
dev_sets=            # sets to validate on
test_sets=           # sets to decode and score
corpora=             # corpora under egs/ whose sets are joined; empty: this folder's own
expname=             # name of the experiment; empty: SYSTEM_SCALE[_LLM]_BUDGET_sSEED
analyse=false        # whether the model is looked into before the report (pam.bin.analyse; minutes)
html=true            # whether the report is also one page with all answers: report.html
inference_tag=       # name of the decoding; empty: greedy_PROMPTS
results=             # folder that keeps a small result of each experiment; empty: none
