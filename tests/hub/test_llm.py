"""Any LLM behind one perception: the same word list, other embeddings, and nothing trained."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from onellm.chat.load import load
from onellm.errors import ModelError
from onellm.hub.convert import convert
from onellm.model.auto import OneLLMProcessor

WORDS = ["w10 w11", "w12", "w13 w14 w15"]
CHANGES = {
    "projector": {"anchor": {"words": WORDS, "width": 12, "scale": 30.0}, "tags": []},
    "media_instruction": "w30 w31",
    "modalities": {
        "image": {
            "token_id": 64,
            "tokenizer": {"type": "image-patches", "size": 28, "patch": 14},
            "input": {"size": 28},
        }
    },
}
LLAMA = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture
def perception(make_model, tokenizer, tmp_path):
    """A model folder whose soft tokens are anchored to words."""
    model = make_model(**CHANGES)
    model.projector.anchor.spell(tokenizer)
    folder = tmp_path / "perception"
    model.save_pretrained(folder)
    OneLLMProcessor.from_config(tokenizer, model.config).save_pretrained(folder)
    return folder


def spelling_backwards(template=True):
    """A tokenizer that has the same words under other numbers, and another chat template."""
    words = {f"w{i}": 59 - i for i in range(60)} | {"<unk>": 60, "<end>": 61}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    built = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="<end>")
    if template:
        built.chat_template = (
            "{% for m in messages %}{{ 'w4 ' + m['content'] + ' w5 ' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ 'w6' }}{% endif %}"
        )
    return built


@pytest.fixture
def llm(tmp_path):
    """Save an LLM of another architecture with its tokenizer."""

    def make(built, template=True):
        folder = tmp_path / f"llm-{built.config.model_type}"
        built.save_pretrained(folder)
        spelling_backwards(template).save_pretrained(folder)
        return str(folder)

    torch.manual_seed(3)
    return make


def llama(**changes):
    return LlamaForCausalLM(LlamaConfig(vocab_size=70, eos_token_id=61, **LLAMA, **changes))


@pytest.mark.parametrize(
    "build",
    [
        llama,
        lambda: GPT2LMHeadModel(GPT2Config(vocab_size=70, n_embd=24, n_layer=2, n_head=2, eos_token_id=61)),
    ],
    ids=["llama", "gpt2"],
)
@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_soft_tokens_are_the_other_llm_s_words(perception, llm, build, quantize, example_files):
    chat = load(str(perception), llm=llm(build()), quantize=quantize)
    model, tokenizer = chat.model, chat.processor.tokenizer
    anchor, table = model.projector.anchor, model.get_input_embeddings()
    wanted = tokenizer("w13 w14 w15")["input_ids"]
    assert anchor.token_ids[2].tolist() == wanted and anchor.token_ids.shape == (3, 3)
    sure = anchor.keys[2].expand(1, 3, 12)
    assert torch.allclose(anchor(sure, table), table(torch.tensor([wanted])), atol=1e-3)
    tensor = chat.processor.to_tensor({"type": "image", "path": str(example_files["image"])})
    assert model.media_embeds("image", [tensor])[0].shape == (3, 24)
    assert isinstance(chat.ask("w7", image=example_files["image"], max_new_tokens=4), str)


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_without_files_it_answers_as_the_llm_alone(perception, llm, quantize):
    folder = llm(llama(num_key_value_heads=1))
    chat = load(str(perception), llm=folder, quantize=quantize)
    alone, tokenizer = AutoModelForCausalLM.from_pretrained(folder), spelling_backwards()
    asked = [{"role": "user", "content": "w7 w8"}]
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    expected = alone.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids["input_ids"].shape[1] :]
    ours = chat.processor.apply_chat_template(asked)
    assert ours["input_ids"].tolist() == ids["input_ids"].tolist()
    answer = chat.model.generate(**ours, max_new_tokens=12, do_sample=False)[0, ids["input_ids"].shape[1] :]
    if quantize == "none":
        assert answer.tolist() == expected.tolist()
    assert chat.ask("w7 w8", max_new_tokens=12) == tokenizer.decode(answer, skip_special_tokens=True).strip()


def test_files_bring_an_instruction_and_their_number(perception, llm, example_files):
    processor = load(str(perception), llm=llm(llama())).processor
    processor.modalities["image"]["before"] = "w20 {nth}"
    picture = {"type": "image", "path": str(example_files["image"])}
    message = {"role": "user", "content": [picture, picture, {"type": "text", "text": "w7"}]}
    text = processor.apply_chat_template([message], tokenize=False)
    assert text == "w4 w30 w31 w5 w4 <image><image>w7 w5 w6"
    runs = processor.runs(processor.render([message]))
    assert [piece for piece, ids in runs if isinstance(piece, str)].count("second ") == 0
    unknown = processor.tokenizer.unk_token_id  # "second", once
    assert sum(ids.count(unknown) for _, ids in runs) == 1
    system = {"role": "system", "content": "w9"}
    assert processor.apply_chat_template([system, message], tokenize=False).startswith("w4 w9\nw30 w31 w5")


def test_an_llm_without_a_chat_template_gets_a_plain_one(perception, llm, capsys):
    chat = load(str(perception), llm=llm(llama(), template=False))
    assert chat.processor.apply_chat_template([{"role": "user", "content": "w7"}], tokenize=False) == (
        "User: w7\nAssistant:"
    )
    assert "no chat template" in capsys.readouterr().err
    assert chat.model.generation_config.stop_strings == ["\nUser:", "\nSystem:"]


def test_a_folder_with_another_llm_is_written(perception, llm, tmp_path, example_files):
    folder = llm(llama())
    out = convert(perception, tmp_path / "other", llm=folder, progress=False)
    one, other = load(str(perception), llm=folder), load(str(out))
    assert one.ask("w7", image=example_files["image"]) == other.ask("w7", image=example_files["image"])
    assert not any("language_model" in path.read_text(errors="ignore") for path in out.glob("*.index.json"))
    with pytest.raises(ModelError, match="exists already"):
        convert(perception, out, llm=folder, progress=False)


def test_what_cannot_be_an_llm_is_refused_in_words(perception, llm, tmp_path, make_model, tokenizer, monkeypatch):
    def refused(name, folder=perception):
        with pytest.raises(ModelError) as error:
            load(str(folder), llm=str(name))
        return str(error.value)

    encoder = tmp_path / "bert"
    BertModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=9)).save_pretrained(
        encoder
    )
    assert "none that transformers knows" in refused(tmp_path)  # a folder without config.json
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text('{"model_type": "from-another-world"}')
    assert "none that transformers knows" in refused(tmp_path / "odd")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "not known" in refused("no-such-llm") and "model hub" in refused("nobody/nothing")
    bare = tmp_path / "bare"
    llama().save_pretrained(bare)
    assert "no tokenizer" in refused(bare)
    own = tmp_path / "own"
    model = make_model()
    model.save_pretrained(own)
    OneLLMProcessor.from_config(tokenizer, model.config).save_pretrained(own)
    assert "serves no other" in refused(bare, own)
