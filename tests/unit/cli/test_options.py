"""The command's options: no verb loses, gains or renames one unseen."""

from __future__ import annotations

import typer

from sentei import cli

OPTIONS = {
    "augment": """
        --model --trust-remote-code/--no-trust-remote-code
        --task --train --text-column --pair-column --label-column
        --regression/--no-regression --encoding --quoting --delimiter --header/--no-header
        --seed --out --lm --copies --replace --candidates --json
    """,
    "bench": """
        --trust-remote-code/--no-trust-remote-code
        --task --kind --train --eval --holdout --text-column --pair-column
        --negative-column --reference
        --label-column --tokens-column --tags-column --question-column --context-column
        --answers-column --image-column --target-column --regression/--no-regression
        --metric --encoding --quoting --delimiter --header/--no-header --max-length
        --doc-stride --max-answer-length --null-threshold --mask-probability
        --whole-words/--no-whole-words --prefix --max-new-tokens
        --num-beams --seed folder --batch --length --threads --rounds --engine
        --precision --score/--no-score --out --json
    """,
    "compare": """
        --model --trust-remote-code/--no-trust-remote-code
        --task --kind --train --eval --text-column --pair-column
        --negative-column --reference
        --cosine-weight --mse-weight --similarity-weight --label-weight --label-column
        --tokens-column --tags-column --question-column --context-column --answers-column
        --image-column --target-column --regression/--no-regression --metric --encoding
        --quoting --delimiter --header/--no-header --teacher --epochs --calibration --dense-epochs
        --batch-size --accumulate --learning-rate --group-by-length/--no-group-by-length
        --lr-warmup --lr-schedule --lr-floor --optimizer --adam-beta1 --adam-beta2 --adam-epsilon
        --weight-decay --clip
        --clip-each/--no-clip-each --freeze-embeddings/--no-freeze-embeddings
        --max-length --doc-stride --max-answer-length
        --null-threshold --flip/--no-flip --mask-probability --whole-words/--no-whole-words
        --prefix --max-new-tokens --num-beams --precision --dtype --state-dtype
        --evaluations --checkpoints plan --method --recipe --set --sparsity --seed
        --baseline --out --only --launch --ray --gpus --cpus --retries --patience
        --wait/--no-wait --keep --report --json
    """,
    "demo": """
        --method --sparsity --pattern --set --embeddings --out --seed --resume --json
    """,
    "evaluate": """
        --model --trust-remote-code/--no-trust-remote-code
        --task --kind --train --eval --holdout --text-column --pair-column
        --negative-column --reference
        --label-column --tokens-column --tags-column --question-column --context-column
        --answers-column --image-column --target-column --regression/--no-regression
        --metric --encoding --quoting --delimiter --header/--no-header --batch-size
        --max-length --doc-stride --max-answer-length --null-threshold --mask-probability
        --whole-words/--no-whole-words --prefix --max-new-tokens --num-beams --seed --json
    """,
    "export": """
        --trust-remote-code/--no-trust-remote-code
        --task --kind --train --eval --holdout --text-column --pair-column
        --negative-column --reference
        --label-column --tokens-column --tags-column --question-column --context-column
        --answers-column --image-column --target-column --regression/--no-regression
        --metric --encoding --quoting --delimiter --header/--no-header --max-length
        --doc-stride --max-answer-length --null-threshold --mask-probability
        --whole-words/--no-whole-words --prefix --max-new-tokens
        --num-beams --seed folder --to --int8 --tolerance --out --json
    """,
    "inspect": """
        --model --trust-remote-code/--no-trust-remote-code
        --task --kind --train --eval --holdout --text-column --pair-column
        --negative-column --reference
        --cosine-weight --mse-weight --similarity-weight --label-weight
        --label-column --tokens-column --tags-column --question-column --context-column
        --answers-column --image-column --target-column --regression/--no-regression
        --metric --encoding --quoting --delimiter --header/--no-header --teacher
        --teacher-cache --epochs --calibration --dense-epochs --batch-size --accumulate
        --learning-rate
        --group-by-length/--no-group-by-length --lr-warmup --lr-schedule --lr-floor
        --optimizer --adam-beta1 --adam-beta2 --adam-epsilon --weight-decay --clip
        --clip-each/--no-clip-each --freeze-embeddings/--no-freeze-embeddings
        --max-length --doc-stride --max-answer-length --null-threshold --flip/--no-flip
        --mask-probability --whole-words/--no-whole-words
        --prefix --max-new-tokens --num-beams --precision --dtype --state-dtype --seed --evaluations
        --checkpoints
        --method --sparsity --pattern --recipe --set --freeze-masks --out --names --json
    """,
    "methods": """
        action name --json
    """,
    "pack": """
        --trust-remote-code/--no-trust-remote-code
        folder --out --values --embeddings --compress/--no-compress --shard --json
    """,
    "prune": """
        --model --trust-remote-code/--no-trust-remote-code
        --task --kind --train --eval --holdout --text-column --pair-column
        --negative-column --reference
        --cosine-weight --mse-weight --similarity-weight --label-weight
        --label-column --tokens-column --tags-column --question-column --context-column
        --answers-column --image-column --target-column --regression/--no-regression
        --metric --encoding --quoting --delimiter --header/--no-header --teacher
        --teacher-cache --epochs --calibration --dense-epochs --batch-size --accumulate
        --learning-rate
        --group-by-length/--no-group-by-length --lr-warmup --lr-schedule --lr-floor
        --optimizer --adam-beta1 --adam-beta2 --adam-epsilon --weight-decay --clip
        --clip-each/--no-clip-each --freeze-embeddings/--no-freeze-embeddings
        --max-length --doc-stride --max-answer-length --null-threshold --flip/--no-flip
        --mask-probability --whole-words/--no-whole-words
        --prefix --max-new-tokens --num-beams --precision --dtype --state-dtype --seed --evaluations
        --checkpoints
        --method --sparsity --pattern --recipe --set --freeze-masks --out --resume --json
    """,
    "report": """
        run --json
    """,
    "shrink": """
        --trust-remote-code/--no-trust-remote-code
        --text-column --pair-column --encoding --quoting --delimiter --header/--no-header
        folder --out --stock --measure --length --batch --vocabulary --least --json
    """,
    "unpack": """
        folder --out --shard --json
    """,
    "verify": """
        --trust-remote-code/--no-trust-remote-code folder --sparsity --json
    """,
}
"""Of every verb, in any order; arguments by their names."""


def spelled(parameter) -> str:
    return "/".join([*parameter.opts, *parameter.secondary_opts])


def test_every_verb_has_these_options():
    group = typer.main.get_command(cli.app)
    verbs = {
        name: sorted(spelled(parameter) for parameter in command.params)
        for name, command in group.commands.items()
    }
    assert verbs == {name: sorted(options.split()) for name, options in OPTIONS.items()}


def test_every_option_says_what_it_is():
    group = typer.main.get_command(cli.app)
    for verb, command in group.commands.items():
        for parameter in command.params:
            assert getattr(parameter, "help", None), (verb, spelled(parameter))
