"""Load exported folders as somebody without PaM does, and print what they answer.

python stranger.py ANSWERS.json CLIPS.npz FOLDER…
"""

import json
import sys
from pathlib import Path

for name in ("pam", "espnet", "espnet2"):
    sys.modules[name] = None  # importing it fails

import numpy as np  # noqa: E402
import torch  # noqa: E402
from transformers import AutoModelForMultimodalLM, AutoProcessor, pipeline  # noqa: E402

torch.set_num_threads(1)
TOKENS = 10


def main(out, clips, *folders):
    data = np.load(clips)
    prompts, audio = list(map(str, data["prompts"])), [data[f"clip{n}"] for n in range(3)]
    found = {}
    for folder in folders:
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
        model, info = AutoModelForMultimodalLM.from_pretrained(
            folder, trust_remote_code=True, output_loading_info=True
        )
        assert not info["missing_keys"] and not info["unexpected_keys"], info
        inputs = processor(text=prompts, audio=audio)
        one = [processor(text=p, audio=a) for p, a in zip(prompts, audio, strict=True)]
        found[folder] = {
            "batch": new(model, inputs),
            "single": [new(model, each)[0] for each in one],
            "chat": new(model, chat(processor, prompts[0], audio[0]))[0],
            "request": new(model, processor.apply_transcription_request(audio[0], prompts[0]))[0],
            "file": new(model, processor(text=prompts[0], audio="clip0.wav"))[0],
            "pipeline": answer(folder, prompts[0], audio[0]),
            "text": processor.decode(new(model, one[0])[0], skip_special_tokens=True),
            "end": model.config.end,
            "dtype": str(model.dtype),
        }
    Path(out).write_text(json.dumps(found))


def new(model, inputs):
    tokens = model.generate(**inputs, max_new_tokens=TOKENS)
    return tokens[:, inputs["input_ids"].shape[1] :].tolist()


def chat(processor, prompt, audio):
    content = [{"type": "audio", "audio": audio}, {"type": "text", "text": prompt}]
    turns = [{"role": "user", "content": content}]
    return processor.apply_chat_template(turns, tokenize=True, return_dict=True)


def answer(folder, prompt, audio):
    pipe = pipeline("any-to-any", model=folder, trust_remote_code=True)
    content = [{"type": "text", "text": prompt}, {"type": "audio", "audio": audio}]
    turns = [{"role": "user", "content": content}]
    (found,) = pipe(text=turns, max_new_tokens=TOKENS, return_full_text=False)
    return found["generated_text"]


if __name__ == "__main__":
    main(*sys.argv[1:])
