"""The engine under a model that stays where it is."""

from __future__ import annotations

import copy
import gc
import inspect
import pickle

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset
from torch import nn
from transformers import AutoTokenizer, Trainer, TrainingArguments, pipeline

import sentei
from helpers.encoders import HEADS, MASKS, build, check, inputs
from sentei.messages import SenteiWarning
from sentei.modules import unwrapped
from sentei.runtime import install, uninstall
from sentei.runtime.encoder import Unsupported
from sentei.runtime.installation import installed

pytestmark = pytest.mark.usefixtures("no_accelerator_is_left")


def put(model, **options):
    install(model, precision="fp32", **options)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("case", ["bert", "distilbert", "mpnet"])
def test_evaluation(case, head, core):
    model = build(case, head)
    plain = copy.deepcopy(model)
    put(model)
    for mask in MASKS:
        check(plain, model, inputs(model, mask))


def test_uninstall_restores(reference):
    model = build("bert", "ForSequenceClassification")
    names = {name: set(vars(module)) for name, module in model.named_modules()}
    signature = inspect.signature(model.bert.forward)
    put(model)
    assert inspect.signature(model.bert.forward) == signature
    uninstall(model)
    assert {name: set(vars(module)) for name, module in model.named_modules()} == names
    assert model.bert.forward.__func__ is type(model.bert).forward
    assert reference[0].closed
    with pytest.raises(ValueError, match="no engine is under this BertForSequenceClassification"):
        uninstall(model)


def test_training_is_the_models_own(reference):
    model = build("bert", "ForSequenceClassification")
    put(model)
    model.train()
    loss = model(**inputs(model), labels=torch.zeros(5, dtype=torch.long)).loss
    loss.backward()
    assert model.bert.encoder.layer[0].attention.self.query.weight.grad.any()
    assert reference[0].runs == 0


def test_gradients_are_refused_in_evaluation(reference):
    """A backward would leave the encoder without gradients, and the head with them."""
    model = build("bert", "ForSequenceClassification")
    put(model)
    logits = model(**inputs(model)).logits
    with pytest.raises(ValueError, match=r"no gradients: call model.train\(\)"):
        logits.sum().backward()
    embeds = torch.randn(1, 3, 32, requires_grad=True)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert not model(**inputs(model)).logits.requires_grad
    with pytest.raises(ValueError, match="no gradients"):
        model(inputs_embeds=embeds).logits.sum().backward()


def test_installing_twice_replaces(reference):
    model = build("bert")
    put(model)
    put(model, fallback="torch")
    assert len(reference) == 2
    model(**inputs(model))
    assert [one.runs for one in reference] == [0, 1]
    assert installed(model).options.fallback == "torch"
    uninstall(model)
    assert "forward" not in vars(model)


# ---------------------------------------------------------------------------- weights that change


def change_in_place(model):
    with torch.no_grad():
        model.bert.encoder.layer[1].intermediate.dense.weight.mul_(1.5)


def load(model):
    other = build("bert", "ForSequenceClassification")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)
    model.load_state_dict(other.state_dict())


def step(model):
    """A fused optimizer, which torch's count of changes does not see, without a forward."""
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.optim.AdamW(model.parameters(), lr=0.01, fused=True).step()


def train_by_hand(model):
    model.train()
    model(**inputs(model), labels=torch.zeros(5, dtype=torch.long)).loss.backward()
    for parameter in model.parameters():
        parameter.data.sub_(parameter.grad)
    model.eval()


def other_memory(model):
    model.bert.embeddings.word_embeddings.weight.data = torch.randn(40, 32)


def other_parameter(model):
    model.bert.encoder.layer[0].output.dense.bias = nn.Parameter(torch.randn(32))


def other_module(model):
    model.bert.encoder.layer[2] = copy.deepcopy(model.bert.encoder.layer[0])


def other_type(model):
    model.double().float()


CHANGES = [
    *(change_in_place, load, step, train_by_hand),
    *(other_memory, other_parameter, other_module, other_type),
]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_are_seen(change, reference):
    model = build("bert", "ForSequenceClassification")
    put(model)
    given = inputs(model)
    model(**given)
    model(**given)
    assert len(reference) == 1
    change(model)
    plain = copy.deepcopy(model)
    uninstall(plain)
    check(plain, model, given)
    model(**given)
    assert len(reference) == 2


def test_another_models_training_changes_nothing(reference):
    model, other = build("bert"), build("bert")
    put(model)
    step(other)
    model(**inputs(model))
    assert len(reference) == 1


def test_pruned_at_the_end(reference):
    """Pruning writes to ``parameter.data``; its last decision comes after the last step."""
    model = build("bert", "ForSequenceClassification")
    put(model)
    pruner = sentei.Pruner(model, sentei.magnitude(sparsity=0.5), total_steps=100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
    pruner.attach(optimizer)
    model.train()
    model(**inputs(model), labels=torch.zeros(5, dtype=torch.long)).loss.backward()
    optimizer.step()
    model.eval()(**inputs(model))
    with pytest.warns(SenteiWarning, match="training stopped at step 1"):
        pruner.finish()
    plain = copy.deepcopy(model)
    uninstall(plain)
    check(plain, model, inputs(model))
    assert (model.bert.encoder.layer[0].output.dense.weight == 0).any()


def test_the_head_alone_may_change(reference):
    model = build("bert", "ForSequenceClassification")
    put(model)
    with torch.no_grad():
        model.bert.pooler.dense.weight.mul_(0.5)
        model.classifier.weight.mul_(0.5)
    plain = copy.deepcopy(model)
    uninstall(plain)
    check(plain, model, inputs(model))
    assert len(reference) == 1


def test_weights_that_become_unfit(reference):
    model = build("bert")
    put(model)
    with torch.no_grad():
        model.encoder.layer[0].output.dense.bias[0] = torch.nan
    with pytest.raises(Unsupported, match=r"layer\.0\.output\.dense\.bias holds NaN"):
        model(**inputs(model))
    with torch.no_grad():
        model.encoder.layer[0].output.dense.bias[0] = 0
    model(**inputs(model))


def test_adapters_put_in_later(reference):
    peft = pytest.importorskip("peft")
    model = build("bert", "ForSequenceClassification")
    put(model)
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["query"], r=2)).eval()
    with pytest.raises(
        Unsupported, match=r"query is a peft\..*Linear with a forward of its own.*merge"
    ):
        adapted(**inputs(model))


# ------------------------------------------------------------------------------ copies and pickles


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_have_their_own(again, reference):
    model = build("bert", "ForSequenceClassification")
    put(model)
    other = again(model)
    with torch.no_grad():
        other.bert.encoder.layer[0].output.dense.weight.mul_(0.5)
    given = inputs(model)
    first, second = model(**given).logits, other(**given).logits
    assert not first.equal(second)
    assert [one.runs for one in reference] == [1, 1]
    plain = copy.deepcopy(other)
    uninstall(plain)
    check(plain, other, given)


def test_saved_models_are_plain(reference, tmp_path):
    model = build("bert", "ForSequenceClassification")
    put(model)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert installed(loaded) is None
    check(loaded, model, inputs(model))


def test_nothing_is_left_behind(reference):
    import weakref

    model = build("bert")
    put(model)
    gc.collect()
    gc.disable()
    try:
        program = weakref.ref(reference.pop())
        del model
        assert program() is None
    finally:
        gc.enable()


# ---------------------------------------------------------------------------- where it is put


class Around(nn.Module):
    def __init__(self, *models):
        super().__init__()
        self.models = nn.ModuleList(models)


def test_models_around(reference):
    model = build("bert")
    install(nn.Sequential(Around(model)))
    model(**inputs(model))
    assert reference[0].runs == 1
    uninstall(Around(model))
    with pytest.raises(ValueError, match="a Around holds 0 models of transformers; give the one"):
        install(Around())
    with pytest.raises(ValueError, match="holds 2 models of transformers: BertModel, MPNetModel"):
        install(Around(model, build("mpnet")))


def test_compiled_by_torch(reference):
    """What is traced is the model's own forward."""
    model = build("bert", "ForSequenceClassification")
    plain = copy.deepcopy(model)
    put(model)
    given = inputs(model)
    check(plain, torch.compile(model, backend="eager"), given)
    assert unwrapped(torch.compile(model)) is model
    runs = reference[0].runs
    traced = torch.jit.trace(model, tuple(given.values()), strict=False, check_trace=False)
    assert reference[0].runs == runs
    check(plain, lambda **some: type(plain(**some))(traced(*some.values())), given)


def test_what_cannot_run(reference):
    model = build("bert", hidden_act="swish")
    with pytest.raises(Unsupported, match="SiLU"):
        install(model)
    assert installed(model) is None
    plain = copy.deepcopy(model)
    with pytest.warns(SenteiWarning, match="torch runs the model: activation SiLU"):
        install(model, fallback="torch")
    check(plain, model, inputs(model))
    uninstall(model)


def test_a_forward_that_was_replaced():
    model = build("bert")
    model.forward = lambda *args, **kwargs: None
    with pytest.raises(Unsupported, match="was replaced already"):
        install(model)


# --------------------------------------------------------------------- code that calls the model


@pytest.fixture
def classifier(tiny_model):
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        tiny_model, num_labels=2, attn_implementation="eager"
    )
    return model.eval(), AutoTokenizer.from_pretrained(tiny_model)


TEXTS = ["the film was good", "a meal", "the book was awful the book was awful", "fine"]


def rows(tokenizer):
    encoded = tokenizer(TEXTS)
    return Dataset.from_dict({**encoded, "labels": [1, 0, 0, 1]})


@pytest.mark.parametrize("bf16", [False, True])
def test_trainer(classifier, core, tmp_path, bf16):
    """Evaluation during training runs on the engine, with the weights as they are then."""
    model, tokenizer = classifier
    put(model)
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=3,
        per_device_train_batch_size=2,
        learning_rate=0.01,
        eval_strategy="epoch",
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        bf16=bf16,
    )
    own = []

    class Callback(transformers.TrainerCallback):
        def on_evaluate(self, args, state, control, metrics, **_):
            plain = copy.deepcopy(model)
            uninstall(plain)
            trainer = Trainer(plain, arguments, eval_dataset=data, processing_class=tokenizer)
            own.append((metrics["eval_loss"], trainer.evaluate()["eval_loss"]))

    data = rows(tokenizer)
    Trainer(
        model,
        arguments,
        train_dataset=data,
        eval_dataset=data,
        processing_class=tokenizer,
        callbacks=[Callback()],
    ).train()
    assert len(own) == 3 and len({round(loss, 6) for loss, _ in own}) == 3
    np.testing.assert_allclose(*zip(*own, strict=True), rtol=0.02 if bf16 else 1e-4)
    assert installed(model) is not None


def test_trainer_of_a_bare_model(tiny_model, reference, tmp_path):
    """The Trainer looks at the forward's arguments, and puts casts around it."""
    model = transformers.BertModel.from_pretrained(tiny_model, attn_implementation="eager")
    put(model)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    arguments = TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, bf16=True, report_to=[], prediction_loss_only=False
    )
    trainer = Trainer(model, arguments, processing_class=tokenizer)
    data = rows(tokenizer).remove_columns("labels").add_column("more", [0] * 4)
    predictions = trainer.predict(data).predictions
    assert len(predictions[0]) == 4 and reference[0].runs
    assert installed(model) is not None
    uninstall(model)
    runs = reference[0].runs
    trainer.predict(data)
    assert reference[0].runs == runs


def test_pipeline(classifier, core):
    model, tokenizer = classifier
    plain = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")(
        TEXTS, batch_size=3
    )
    put(model)
    found = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")(
        TEXTS, batch_size=3
    )
    assert [one["label"] for one in found] == [one["label"] for one in plain]
    np.testing.assert_allclose(
        [one["score"] for one in found], [one["score"] for one in plain], rtol=1e-4
    )


def test_token_pipeline(tiny_model, reference):
    torch.manual_seed(0)
    model = transformers.AutoModelForTokenClassification.from_pretrained(tiny_model, num_labels=3)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    find = pipeline("token-classification", model=model, tokenizer=tokenizer, device="cpu")
    plain = find(TEXTS, batch_size=4)
    put(model)
    found = find(TEXTS, batch_size=4)
    assert reference[0].runs
    for one, other in zip(found, plain, strict=True):
        assert [token["entity"] for token in one] == [token["entity"] for token in other]


def test_sentence_transformers(tiny_model, core, tmp_path):
    library = pytest.importorskip("sentence_transformers")
    from sentence_transformers.models import Normalize, Pooling, Transformer

    body = Transformer(str(tiny_model))
    model = library.SentenceTransformer(
        modules=[body, Pooling(16, "mean"), Normalize()], device="cpu"
    )
    plain = model.encode(TEXTS)
    put(model)
    np.testing.assert_allclose(model.encode(TEXTS), plain, atol=1e-5)
    assert installed(model)._built is not None
    again = library.SentenceTransformer(modules=[body, Pooling(16, "cls")], device="cpu")
    assert again.encode(TEXTS).shape == (4, 16)
    uninstall(model)
    np.testing.assert_allclose(model.encode(TEXTS), plain, atol=1e-6)
