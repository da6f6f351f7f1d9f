"""Print what each process keeps of an LLM's frozen layers, before and after they are sharded."""

import json
import sys

from pam.llm.causal_lm import CausalLM
from pam.train.processes import gathered, is_first, joined
from pam.train.sharding import bytes_here, shard

with joined(0):
    llm = CausalLM(sys.argv[1], lora_rank=2)
    trained = {name: p.shape for name, p in llm.named_parameters() if p.requires_grad}
    whole = bytes_here(llm)
    shard(llm, llm, "cpu")
    assert trained == {name: p.shape for name, p in llm.named_parameters() if p.requires_grad}
    parts = gathered([bytes_here(llm)])
    if is_first():
        print(json.dumps([whole, parts]))
