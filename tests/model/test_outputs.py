import pytest
import torch

from onellm.errors import ModelError
from onellm.model.configuration import OneLLMConfig
from onellm.model.output_heads import Grammar, find, spans, unfinished

CODES = {"size": 16, "codes": 8, "dim": 4, "encoder": [8, 8], "decoder": [8, 8], "blocks": 1}  # 4 x 4 = 16 codes
SIGNALS = {"type": "representation", "tokens": 3, "queries": 2, "width": 6, "hidden": 16, "layers": 1, "ffn": 16}
OUTPUTS = {"image": {"type": "tokens", "codes": CODES}, "audio": SIGNALS}
LORA = {"r": 2, "target_modules": ["q_proj", "v_proj"], "on": "outputs"}
FIRST = 72  # 64 words, 8 placeholders


@pytest.fixture
def drawing(make_model):
    return make_model(outputs=OUTPUTS)


def test_spans_follow_the_placeholders(drawing):
    audio, image = drawing.config.spans
    assert (audio.first, audio.count, audio.length) == (FIRST, 3, 3)
    assert (image.first, image.count, image.length) == (FIRST + 3, 4 + 8, 4 * 5)
    assert find([5, *image.tokens_of([1] * 16), 7, *audio.tokens_of()], [audio, image]) == [
        (image, 1),
        (audio, 22),
    ]
    codes = [3, 0, 7, *range(8), 1, 2, 3, 4, 5]
    assert image.codebook_indices(image.tokens_of(codes)) == codes
    assert image.tokens_of(codes)[:6] == [FIRST + 3, FIRST + 10, FIRST + 7, FIRST + 14, FIRST + 7, FIRST + 4]
    assert audio.tokens_of() == [FIRST, FIRST + 1, FIRST + 2]
    assert unfinished([4, image.first, image.first + 1], [audio, image]) == (image, 2)
    assert unfinished([4, *image.tokens_of([1] * 16)], [audio, image]) is None


def test_logits_of_ids_that_nobody_has_are_minus_infinity(drawing):
    logits = drawing(input_ids=torch.tensor([[1, 5, FIRST + 4]])).logits
    assert logits.shape[-1] == FIRST + 15
    assert logits[..., 64:FIRST].eq(-torch.inf).all() and logits[..., FIRST:].isfinite().all()


def test_rows_change_nothing_for_text(drawing, make_model):
    plain, ids = make_model(), torch.tensor([[1, 5, 9, 3]])
    drawing.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(drawing(input_ids=ids).logits[..., :64], plain(input_ids=ids).logits)


def test_rows_start_at_the_mean(drawing):
    embedding = drawing.get_input_embeddings().weight
    drawing.rows.start(embedding, drawing.get_output_embeddings().weight)
    assert torch.allclose(drawing.rows.input.mean(dim=0), embedding.mean(dim=0), atol=0.1)
    assert drawing.rows.input.std(dim=0).min() > 0


def test_cached_generation_is_uncached_and_outputs_are_whole(drawing):
    image = drawing.config.spans[1]
    with torch.no_grad():
        drawing.rows.head[3] += (
            50 * drawing(input_ids=torch.tensor([[1, 5]]), output_hidden_states=True).hidden_states[-1][0, -1]
        )  # it begins a picture
    ids = torch.tensor([[1, 5]])
    written = drawing.generate(ids, max_new_tokens=24, do_sample=False, eos_token_id=None)
    slow = drawing.generate(ids, max_new_tokens=24, do_sample=False, eos_token_id=None, use_cache=False)
    assert torch.equal(written, slow)
    answer = written[0, 2:].tolist()
    assert (image, 0) in find(answer, drawing.config.spans)
    assert all(token < 64 or token in (FIRST, image.first) for token in answer[20:21])
    ((modality, tokens, picture), *_) = drawing.generate_media(written, 2)
    assert modality == "image" and tokens == answer[:20] and picture.shape == (3, 16, 16)
    assert 0 <= float(picture.min()) <= float(picture.max()) <= 1


def test_grammar_forces_signals_in_their_order(drawing):
    audio = drawing.config.spans[0]
    grammar = Grammar(drawing.config.spans)
    scores = torch.zeros(1, FIRST + 15)
    assert grammar(torch.tensor([[5, FIRST]]), scores.clone())[0].isfinite().nonzero().tolist() == [[FIRST + 1]]
    free = grammar(torch.tensor([[5]]), scores.clone())[0].isfinite()
    assert (
        free[:64].all()
        and free[audio.first]
        and free[FIRST + 3]
        and not free[FIRST + 1]
        and not free[FIRST + 4 :].any()
    )


@pytest.mark.parametrize("int8", [False, True])
def test_the_fast_cpu_path_says_the_same(make_model, int8, monkeypatch):
    from onellm.model.runtime import cpu

    monkeypatch.setattr(cpu, "SMALL", 0)  # the head is replaced too
    model = make_model(outputs=OUTPUTS, adapter=LORA)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    ids = torch.tensor([[1, 5, FIRST + 3, FIRST + 4, FIRST + 8]])
    with torch.no_grad():
        plain = model(input_ids=ids).logits
        fast = cpu.optimise(model, int8)(input_ids=ids).logits
    assert fast.shape == plain.shape
    known = plain.isfinite()
    assert torch.allclose(fast[known], plain[known], atol=0.1 if int8 else 1e-4)


def test_the_adapter_speaks_in_outputs_alone(make_model):
    model = make_model(outputs=OUTPUTS, adapter=LORA)
    ids = torch.tensor([[1, 5, 7, FIRST + 3, FIRST + 4]])
    with torch.no_grad():
        before = model(input_ids=ids).logits
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter)
        after = model(input_ids=ids).logits
        assert torch.equal(before[:, :3], after[:, :3]) and not torch.allclose(before[:, 3], after[:, 3])
        model.train()
        assert torch.equal(model(input_ids=ids).logits[:, :3], before[:, :3])


@pytest.mark.parametrize(
    "outputs",
    [{"smell": {"type": "text"}}, {"image": {"type": "magic"}}, {"image": {}}, {"audio": {"type": "tokens"}}],
)
def test_unknown_outputs_are_refused_in_words(outputs):
    with pytest.raises(ModelError, match="choose one of|another type"):
        OneLLMConfig(text_config={"model_type": "llama"}, outputs=outputs)


def test_spans_do_not_depend_on_the_order_of_kinds():
    assert spans(dict(reversed(OUTPUTS.items())), 9) == spans(OUTPUTS, 9)
