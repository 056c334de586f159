"""The training loop: what it reports, and that no interruption changes what comes out."""

import csv
import dataclasses
import shutil
import signal
import time

import pytest
import torch
from conftest import assert_refused, run_script, start_script
from PIL import Image

import models
from data.base import VectorDataset
from experiments import run, train_flags
from experiments.plan import configuration
from utils import checkpoint, devices, loop
from utils.errors import UserError

FLAGS = ("--dataset", "digits", "--vae", "-n", 8, "--train-size", 1000, "--valid-size", 100, "--lr", 1e-3)
FLAGS += ("--arch", "relu:32", "--batch-size", 4)  # small and fast, and an epoch still has a middle
CONVOLUTIONS = ("--dataset", "digits", "--vae", "-n", 8, "--train-size", 200, "--valid-size", 20)


def weights(folder, name="vae"):
    return checkpoint.load(folder / "digits" / name)["weights"]


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_totals_weigh_batches_by_their_size():
    totals = loop.Totals()
    totals.add(["loss"], torch.tensor([1.0]), 32)
    totals.add(["loss"], torch.tensor([4.0]), 16)
    assert totals.means() == {"loss": pytest.approx(2.0)}
    more = loop.Totals(**totals.state())
    more.add(["loss"], torch.tensor([0.0]), 48)
    assert more.means() == {"loss": pytest.approx(1.0)}


def test_adam_takes_the_published_step():
    """One step of the loop against Adam's equations in float64 (Kingma & Ba 2015, algorithm 1)."""
    torch.manual_seed(0)
    model = models.build("ae", architecture="mlp:4", channels=6, latent_dim=2)
    before = {name: p.detach().double().clone() for name, p in model.named_parameters()}
    x = torch.rand(8, 6)
    model.losses(x)["loss"].backward()
    gradients = {name: p.grad.double().clone() for name, p in model.named_parameters()}
    loop.Step(model, loop.make_optimizer(model, 1e-2), VectorDataset(x))(torch.arange(8))
    for name, p in model.named_parameters():
        g = gradients[name]
        expected = before[name] - 1e-2 * g / (g.abs() + 1e-8)  # after bias correction m = g and sqrt(v) = |g|
        assert torch.allclose(p.double(), expected, atol=1e-7)


@pytest.mark.parametrize(("preset", "override"), [
    ("rae-l2-mnist", ("--penalty", "gp")), ("rae-gp-mnist", ("--penalty", "sn")),
    ("beta-vae-celeba-ssim", ("--joint",)),
])  # fmt: skip
def test_options_of_a_preset_that_an_override_makes_idle_are_no_mistake(preset, override):
    args = train_flags.parse(["--preset", preset, *override])
    assert run.RunConfig.from_args(args).model == args.model
    with pytest.raises(UserError, match="has no effect"):
        train_flags.parse(["--model", "rae", "--penalty", "sn", "--penalty-weight", "1", "--resume"])


def test_no_moment_of_adam_is_subnormal(tmp_path):
    """CPUs are slow on them: weights of pixels that are dark in most images have a gradient now and then."""
    flags = ("--dataset", "digits", "--arch", "mlp:32", "--model", "ae", "-n", 4, "--batch-size", 4, "--epochs", 3)
    assert run_script("train.py", *flags, "--lr", 1e-2, "--checkpoint", tmp_path).status == 0
    moments = [s["exp_avg"].abs() for s in checkpoint.load(tmp_path / "digits" / "ae")["optimizer"]["state"].values()]
    assert len(moments) == 8
    assert not any(((m > 0) & (m < torch.finfo(m.dtype).tiny)).any() for m in moments)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_weight_decay_is_decoupled_and_none_of_it_is_adam_to_the_bit(weight_decay):
    """IRMAE, a few steps: AdamW shrinks the weights by lr · w and then takes Adam's step (arXiv 1711.05101)."""
    x, lr = torch.rand(40, 6, generator=torch.Generator().manual_seed(0)), 1e-2

    def shrink(adam: torch.optim.Adam, *_) -> None:
        for parameter in adam.param_groups[0]["params"]:
            parameter.data.mul_(1 - lr * weight_decay)

    found = []
    for ours in (True, False):
        torch.manual_seed(0)
        model = models.build("irmae", architecture="mlp:4", channels=6, latent_dim=3, linear_layers=2)
        optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=True)
        optimizer.register_step_pre_hook(shrink)
        step = loop.Step(model, loop.make_optimizer(model, lr, weight_decay) if ours else optimizer, VectorDataset(x))
        for index in torch.arange(40).split(8):
            step(index)
        found.append([parameter.detach() for parameter in model.parameters()])
    for ours, expected in zip(*found, strict=True):
        assert torch.allclose(ours, expected, atol=1e-3 * lr) if weight_decay else torch.equal(ours, expected)


def test_validation_draws_the_same_noise_and_leaves_training_alone():
    torch.manual_seed(0)
    model = models.build("vae", architecture="mlp:4", channels=6, latent_dim=2)
    batches = [torch.rand(8, 6)]
    state = torch.get_rng_state()
    assert loop.evaluate(model, batches) == loop.evaluate(model, batches)
    assert torch.equal(state, torch.get_rng_state())
    assert loop.evaluate(model, batches, stop=lambda: True) is None


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    result = run_script("train.py", *FLAGS, "--epochs", 3, "--checkpoint", folder)
    assert result.status == 0, result.err
    assert "validation loss" in result.last_line and "3 epochs" in result.last_line
    return folder


def test_the_loss_falls_and_is_written_down(uninterrupted):
    with open(uninterrupted / "digits" / "vae.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[2]["valid_loss"]) < float(rows[0]["valid_loss"])
    assert {"train_loss", "train_kl", "valid_reconstruction", "seconds"} <= set(rows[0])
    saved = checkpoint.load(uninterrupted / "digits" / "vae")["metrics"]
    assert [float(row["valid_loss"]) for row in rows] == [row["valid_loss"] for row in saved]


def test_tensorboard_has_scalars_and_reconstructions(uninterrupted):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(uninterrupted / "digits" / "tensorboard" / "vae"))
    events.Reload()
    assert [event.step for event in events.Scalars("valid/loss")] == [1, 2, 3]
    assert [event.step for event in events.Images("reconstruction")] == [1, 3]  # with a checkpoint


def test_the_seed_decides_everything(uninterrupted, tmp_path, call):
    call("train.py", *FLAGS, "--epochs", 3, "--checkpoint", tmp_path / "same")
    assert same(weights(tmp_path / "same"), weights(uninterrupted))
    call("train.py", *FLAGS, "--epochs", 3, "--checkpoint", tmp_path / "other", "--seed", 1)
    assert not same(weights(tmp_path / "other"), weights(uninterrupted))


@pytest.mark.parametrize(
    ("number", "flags"),
    [(signal.SIGINT, FLAGS), (signal.SIGTERM, FLAGS), (signal.SIGHUP, FLAGS), (signal.SIGKILL, CONVOLUTIONS)],
)
def test_an_interrupted_run_ends_where_it_would_have(uninterrupted, tmp_path, number, flags, call):
    """Stopped in the middle of an epoch and resumed: the same weights to the last bit, the same table."""
    if flags is not FLAGS:
        uninterrupted = tmp_path / "uninterrupted"
        assert call("train.py", *flags, "--epochs", 3, "--checkpoint", uninterrupted).status == 0
    command = (*flags, "--epochs", 3, "--checkpoint", tmp_path)
    process = start_script("train.py", *command)
    for line in process.stdout:
        if line.startswith("vae: epoch 1/3"):
            break
    time.sleep(0.05)  # into the second epoch
    process.send_signal(number)
    rest, _ = process.communicate(timeout=60)
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number, rest
        assert "--resume" in rest.strip().splitlines()[-1]
    result = call("train.py", *command, "--resume")
    assert result.status == 0, result.err
    assert same(weights(tmp_path), weights(uninterrupted))
    first, second = (
        [{key: value for key, value in row.items() if key != "seconds"} for row in checkpoint.load(path)["metrics"]]
        for path in (tmp_path / "digits" / "vae", uninterrupted / "digits" / "vae")
    )
    assert first == second


def test_two_runs_of_one_name_never_meet(tmp_path, call):
    """The second is refused and changes nothing; another name may train beside it; nothing is left of the lock."""
    command = (*FLAGS, "--checkpoint", tmp_path)
    process = start_script("train.py", *command, "--epochs", 1000)
    for line in process.stdout:
        if line.startswith("vae: epoch 1/1000"):
            break
    for more in ((), ("--resume",)):
        refused = call("train.py", *command, "--epochs", 2000, *more)
        assert_refused(refused, tmp_path / "digits" / "vae", "another process", "--model-name")
    assert not (tmp_path / "digits" / "previous").exists()
    assert call("train.py", *command, "--epochs", 1, "--model-name", "other").status == 0
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert sorted(file.name for file in (tmp_path / "digits").iterdir()) == [
        "other", "other.csv", "other.yaml", "tensorboard", "vae", "vae.csv", "vae.yaml"
    ]  # fmt: skip
    done = checkpoint.load(tmp_path / "digits" / "vae")["epoch"]
    assert call("train.py", *command, "--epochs", done + 1, "--resume").status == 0


def test_a_finished_run_can_be_made_longer(uninterrupted, tmp_path, call):
    command = ("train.py", *FLAGS, "--checkpoint", tmp_path)
    call(*command, "--epochs", 2)
    call(*command, "--epochs", 3, "--resume")
    assert same(weights(tmp_path), weights(uninterrupted))
    again = call(*command, "--epochs", 3, "--resume")
    assert again.status == 0 and "already trained" in again.last_line


def test_resume_takes_the_flags_of_the_first_run(uninterrupted, tmp_path, call):
    """The name alone says what to go on with, the learning rate included; what is given changes it or is refused."""
    command = ("train.py", "--dataset", "digits", "--checkpoint", tmp_path, "--model-name", "vae")
    assert call(*command, *FLAGS, "--epochs", 2).status == 0
    again = call(*command, "--resume")
    assert again.status == 0 and "already trained for 2 epochs" in again.last_line
    assert call(*command, "--resume", "--epochs", 3).status == 0
    assert same(weights(tmp_path), weights(uninterrupted))
    record = run.read(tmp_path / "digits" / "vae")
    assert record.config.lr == 1e-3 and record.config.epochs == 3
    assert call(*command, "--resume", "--epochs", 4, "--lr", 2e-3).status == 0
    assert [row["lr"] for row in checkpoint.load(tmp_path / "digits" / "vae")["metrics"]] == [1e-3, 1e-3, 1e-3, 2e-3]
    assert_refused(call(*command, "--resume", "-n", 9), "latent_dim is 8", "9")
    assert_refused(call(*command, "--resume", "-l", 2), "model is vae", "irmae")


def test_a_folder_that_changed_is_noticed(tmp_path, call):
    from PIL import Image

    pictures, checkpoints = tmp_path / "pictures", tmp_path / "checkpoint"
    pictures.mkdir()
    for index in range(40):
        Image.new("L", (20, 20), 6 * index).save(pictures / f"{index}.png")
    base = ("train.py", "--dataset", "folder", "--checkpoint", checkpoints, "--model-name", "x")
    first = (*base, "--data-path", pictures, "--image-size", 32, "--channels", 1, "-l", 0, "-n", 4, "--eager")
    assert call(*first, "--epochs", 1).status == 0
    assert run.read(checkpoints / "folder" / "x").config.eager
    (pictures / "new.png").write_bytes((pictures / "3.png").read_bytes())
    result = call(*base, "--resume", "--epochs", 2)
    assert result.status == 0 and "have changed since" in result.out
    assert run.read(checkpoints / "folder" / "x").config.eager
    record = checkpoint.load(checkpoints / "folder" / "x")
    running = {"sums": {"loss": 1.0, "reconstruction": 1.0}, "count": 32}
    checkpoint.save(checkpoints / "folder" / "x", record | {"step": 1, "running": running})
    (pictures / "new.png").unlink()
    assert_refused(call(*base, "--resume", "--epochs", 3), "not those of the first run", "middle of an epoch")
    pictures.rename(tmp_path / "moved")
    result = call(*base, "--resume", "--epochs", 3)
    assert_refused(result, f"--data-path {pictures}", "found nothing there")  # it has not changed, nor is it elsewhere


@pytest.mark.parametrize("model", ["irmae", "rae", "infocat-vae", "radogaga", "beta-vae"])
def test_resume_takes_every_option_of_a_model(tmp_path, call, model):
    flags = {
        "irmae": ("-l", 3, "--init-variance", 2),
        "rae": ("--penalty", "gp"),
        "infocat-vae": ("--info-weight", 0.5, "--arch", "mlp"),
        "radogaga": ("--prior", "gmm", "--components", 2, "--lambda1", 7, "--arch", "mlp"),
        "beta-vae": ("--joint", "--distortion", "ssim", "--arch", "mlp"),
    }[model]
    sizes = ("--train-size", 40, "--valid-size", 20, "--epochs", 1)
    command = ("train.py", "--dataset", "digits", "--checkpoint", tmp_path, "--model-name", "x")
    result = call(*command, "--model", model, *flags, *sizes)
    assert result.status == 0, result.err
    before = run.read(tmp_path / "digits" / "x")
    result = call(*command, "--resume", "--epochs", 2)
    assert result.status == 0, result.err
    after = run.read(tmp_path / "digits" / "x")
    assert after.epoch == 2 and after.config == dataclasses.replace(before.config, epochs=2)


def test_eager_or_captured_here_or_on_a_gpu_it_is_one_run(call, tmp_path):
    """Losses within 1 % with and without --eager; a run from a GPU, whose Adam is capturable, goes on; one key."""
    flags = (*FLAGS, "--train-size", 65)
    eager, other = (tmp_path / folder / "digits" / "vae" for folder in ("eager", "other"))
    call("train.py", *flags, "--epochs", 2, "--checkpoint", tmp_path / "eager", "--eager")
    call("train.py", *flags, "--epochs", 1, "--checkpoint", tmp_path / "other")
    record = checkpoint.load(other)
    for group in record["optimizer"]["param_groups"]:
        group["capturable"] = True
    checkpoint.save(other, record)
    result = call("train.py", *flags, "--epochs", 2, "--checkpoint", tmp_path / "other", "--resume")
    assert result.status == 0, result.err
    records = [run.read(path) for path in (eager, other)]
    losses = [[row["valid_loss"] for row in record.metrics] for record in records]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
    assert not any(group["capturable"] for group in records[1].optimizer["param_groups"])
    keys = [configuration(record.config, 2) for record in records]
    asked = configuration(run.RunConfig.from_args(train_flags.parse([*map(str, flags), "--eager"])), 2)
    assert keys[0] == keys[1] == asked


def test_training_again_sets_the_first_run_aside(tmp_path, call):
    command = ("train.py", *FLAGS, "--checkpoint", tmp_path, "--epochs", 1)
    call(*command)
    first = weights(tmp_path)
    result = call(*command, "--seed", 5)
    assert "the earlier" in result.out
    (kept,) = [file for file in (tmp_path / "digits" / "previous").iterdir() if not file.suffix]
    assert same(checkpoint.load(kept)["weights"], first)
    assert not same(weights(tmp_path), first)
    curves = tmp_path / "digits" / "tensorboard"
    assert sorted(folder.name for folder in curves.iterdir()) == ["vae", kept.name]
    assert all(len(list(folder.iterdir())) == 1 for folder in curves.iterdir())
    assert f"tensorboard --logdir {curves}" in result.out
    flags = ("--dataset", "digits", "--checkpoint", tmp_path, "--save-path", tmp_path / "results")
    result = call("singular.py", *flags, "--model-name", f"previous/{kept.name}", "vae")
    assert result.status == 0, result.err
    assert (tmp_path / "results" / "digits" / "singular" / f"{kept.name}+vae.json").is_file()
    result = call("generation.py", *flags, "--model-name", f"previous/{kept.name}", "--task", "reconstruction")
    assert (tmp_path / "results" / "digits" / "reconstruction" / f"{kept.name}.png").is_file()
    for name in ("previous/none", f"previous/../previous/{kept.name}", "previous/", "/etc/passwd"):
        assert_refused(call("singular.py", *flags, "--model-name", name), name)
    assert_refused(call(*command, "--model-name", f"previous/{kept.name}"), "--model-name", "without folders")


def test_the_newest_checkpoint_is_none_of_a_table(uninterrupted, tmp_path, call):
    """Those of reproduce.py and of best epochs are used where they are named, and never because they are the newest."""
    (tmp_path / "digits").mkdir()
    flags = ("singular.py", "--dataset", "digits", "--checkpoint", tmp_path, "--save-path", tmp_path / "results")
    for name in ("vae-012345678a", "vae-0123456789", "vae", "vae.best", "vae-89abcdef01"):
        if name == "vae-0123456789":  # ten digits: a date, say
            assert_refused(call(*flags), "no checkpoint", "--model-name", "vae-012345678a")
        shutil.copyfile(uninterrupted / "digits" / "vae", tmp_path / "digits" / name)
    result = call(*flags)
    assert (
        result.status == 0
        and f"newest checkpoint of digits: {tmp_path / 'digits' / 'vae'} (but for vae-89abcdef01" in result.out
    )
    for name in ("vae.best", "vae-89abcdef01"):
        assert call(*flags, "--model-name", name).status == 0


def test_divergence_has_its_own_exit_status_and_saves_nothing(tmp_path, call):
    flags = ("--dataset", "digits", "-l", 4, "--train-size", 200, "--lr", 1e9, "--epochs", 2)
    result = call("train.py", *flags, "--checkpoint", tmp_path)
    assert result.status == 3
    assert "diverged in epoch 1" in result.err and "Traceback" not in result.err
    assert not any(tmp_path.iterdir())


def test_weights_that_diverge_do_not_replace_good_ones(tmp_path, call, monkeypatch):
    """The losses of an epoch are finite, the last step of it makes a weight infinite."""
    command = ("train.py", *FLAGS, "--checkpoint", tmp_path)
    assert call(*command, "--epochs", 1).status == 0
    before = (tmp_path / "digits" / "vae").read_bytes()
    evaluate = loop.evaluate

    def break_a_weight(model, *args):
        losses = evaluate(model, *args)
        next(model.parameters()).data.flatten()[0] = torch.inf
        return losses

    monkeypatch.setattr(loop, "evaluate", break_a_weight)
    result = call(*command, "--epochs", 2, "--resume")
    assert result.status == 3 and "diverged in epoch 2 (weights enc." in result.err
    assert "holds the last good state" in result.err
    assert (tmp_path / "digits" / "vae").read_bytes() == before


def curves(folder) -> dict[tuple[str, int], float]:
    from experiments.logs import Logs

    return Logs(folder / "digits" / "vae").scalars()


@pytest.mark.parametrize(
    "lost", ["csv row", "csv", "last two thirds", "all events", "flipped bit", "other run", "nothing"]
)
def test_what_the_logs_of_a_killed_run_lack_is_written_again(uninterrupted, tmp_path, call, lost):
    """Killed between the checkpoint and the logs of an epoch, or logs lost: made again from the checkpoint."""
    shutil.copytree(uninterrupted / "digits", tmp_path / "digits")
    table, folder = tmp_path / "digits" / "vae.csv", tmp_path / "digits" / "tensorboard" / "vae"
    whole, expected = table.read_text(), curves(tmp_path)
    assert {step for _, step in expected} == {1, 2, 3}
    (events,) = folder.iterdir()
    content = bytearray(events.read_bytes())
    if lost == "csv row":
        table.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    elif lost == "csv":
        table.unlink()
    elif lost == "last two thirds":
        events.write_bytes(content[: len(content) // 3])  # within the picture of the first epoch
    elif lost == "all events":
        shutil.rmtree(folder)
    elif lost == "flipped bit":
        content[len(content) // 3] ^= 1
        events.write_bytes(content)
    elif lost == "other run":
        events.unlink()
        (tmp_path / "other").mkdir()
        call("train.py", *FLAGS, "--seed", 1, "--epochs", 4, "--checkpoint", tmp_path / "other")
        shutil.copytree(tmp_path / "other" / "digits" / "tensorboard", folder.parent, dirs_exist_ok=True)
    files = len(list(folder.iterdir())) if folder.exists() else 0
    again = call("train.py", *FLAGS, "--epochs", 3, "--checkpoint", tmp_path, "--resume")
    assert again.status == 0 and "already trained" in again.last_line and not again.err
    assert table.read_text() == whole
    assert curves(tmp_path) == expected
    assert len(list(folder.iterdir())) == files + (lost not in ("csv row", "csv", "nothing"))


def test_the_seconds_of_an_epoch_count_every_process_that_it_took(tmp_path, call, monkeypatch):
    """Interrupted after the third step of 13 and resumed: all of them are in the row."""
    command = ("train.py", *FLAGS, "--train-size", 52, "--checkpoint", tmp_path, "--epochs", 1)
    step, calls = loop.Step.__call__, []

    def slow(self, index):
        calls.append(time.sleep(0.05))
        if len(calls) == 3:
            signal.raise_signal(signal.SIGTERM)
        return step(self, index)

    monkeypatch.setattr(loop.Step, "__call__", slow)
    assert call(*command).status == 128 + signal.SIGTERM
    assert call(*command, "--resume").status == 0 and len(calls) == 13
    (row,) = checkpoint.load(tmp_path / "digits" / "vae")["metrics"]
    assert row["seconds"] >= 13 * 0.05


def test_bf16_learns_too(tmp_path, call):
    sizes = ("--train-size", 128, "--valid-size", 32, "--arch", "relu:32")  # convolutions in bf16: test_devices.py
    flags = ("--dataset", "digits", "-l", 2, "-n", 8, *sizes, "--lr", 1e-3, "--epochs", 2)
    losses = {}
    for precision in ("fp32", "bf16"):
        done = call("train.py", *flags, "--precision", precision, "--checkpoint", tmp_path / precision)
        slow = devices.emulated(precision, torch.device("cpu"))
        assert ("only emulates" in done.err) is slow and done.status == 0
        losses[precision] = checkpoint.load(tmp_path / precision / "digits" / "irmae")["metrics"][-1]["valid_loss"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)
    assert losses["bf16"] != losses["fp32"]


def test_only_a_processor_without_bf16_emulates_it(monkeypatch):
    for able in (True, False):
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda able=able: able)
        assert devices.emulated("bf16", torch.device("cpu")) is not able
        assert not devices.emulated("fp32", torch.device("cpu"))
        assert not devices.emulated("bf16", torch.device("cuda"))


def test_samples_are_written_beside_the_checkpoint_and_change_nothing(uninterrupted, tmp_path, call):
    """Of a prior and of a fitted Gaussian: the same weights to the last bit; kept with the run, and with --resume."""
    command = ("train.py", *FLAGS, "--checkpoint", tmp_path)
    assert call(*command, "--epochs", 2, "--samples-every", 1).status == 0
    folder = tmp_path / "digits" / "vae.samples"
    names = [f"epoch-{epoch:04}{what}.png" for epoch in (1, 2, 3) for what in ("-reconstruction", "")]
    assert sorted(file.name for file in folder.iterdir()) == names[:4]
    assert call(*command, "--epochs", 3, "--resume").status == 0  # which takes --samples-every from the checkpoint
    assert sorted(file.name for file in folder.iterdir()) == names
    assert same(weights(tmp_path), weights(uninterrupted))
    assert (folder / names[1]).read_bytes() != (folder / names[5]).read_bytes()
    with Image.open(folder / names[1]) as grid, Image.open(folder / names[0]) as pairs:
        assert grid.size == (8 * 66 + 2, 8 * 66 + 2) and pairs.size[0] == 16 * 66 + 2

    assert call(*command, "--epochs", 1).status == 0
    assert not folder.exists()
    (kept,) = (tmp_path / "digits" / "previous").glob("*.samples")
    assert sorted(file.name for file in kept.iterdir()) == names
    assert kept.with_suffix("").is_file()

    plain = (*[word for word in FLAGS if word != "--vae"], "-l", 1, "--epochs", 1)
    for folder, more in (("with", ("--samples-every", 1)), ("without", ())):
        assert call("train.py", *plain, "--checkpoint", tmp_path / folder, *more).status == 0
    assert same(weights(tmp_path / "with", "irmae"), weights(tmp_path / "without", "irmae"))
    assert (tmp_path / "with" / "digits" / "irmae.samples" / "epoch-0001.png").exists()


@pytest.fixture
def losses(monkeypatch):
    """Validation losses of our own, one an epoch, whatever the model learns."""
    evaluate, values = loop.evaluate, [0.5, 0.3, 0.4, 0.2, 0.4, 0.2, 0.3, 0.1]
    taken = iter(values)
    monkeypatch.setattr(loop, "evaluate", lambda *args: evaluate(*args) | {"loss": next(taken)})
    return values


def test_the_best_epoch_is_kept_and_patience_ends_a_run(uninterrupted, tmp_path, call, losses):
    """Epochs 2 and 4 are best; 5 and 6 lower nothing (6 is equal). In two calls as in one."""
    command = ("train.py", *FLAGS, "--checkpoint", tmp_path, "--keep-best")
    path, best = tmp_path / "digits" / "vae", tmp_path / "digits" / "vae.best"
    assert "vae.best is of epoch 2" in call(*command, "--epochs", 3).last_line
    assert same(weights(tmp_path), weights(uninterrupted))  # neither flag changes the training
    assert run.read(best).epoch == 2 and not same(weights(tmp_path), weights(tmp_path, "vae.best"))
    result = call(*command, "--epochs", 7, "--patience", 2, "--resume")
    assert result.status == 0 and "after 6 epochs, the last 2 of them without a lower one" in result.last_line
    assert (run.read(path).epoch, run.read(best).epoch) == (6, 4)
    assert len(run.read(best).metrics) == 4
    again = call(*command, "--resume")
    assert again.status == 0 and "already trained for 6 epochs (--epochs 7, --patience 2)" in again.last_line
    assert call(*command, "--epochs", 7, "--patience", 3, "--resume").status == 0 and run.read(path).epoch == 7

    flags = ("--dataset", "digits", "--checkpoint", tmp_path, "--save-path", tmp_path / "results")
    assert call("singular.py", *flags, "--model-name", "vae.best").status == 0
    assert f"newest checkpoint of digits: {path}" in call("singular.py", *flags).out
    assert_refused(call(*command, "--model-name", "vae.best"), "vae.best", "choose another")


def test_the_best_epoch_has_the_weights_of_a_run_that_ends_there(uninterrupted, tmp_path, call, monkeypatch):
    values, evaluate = iter([0.5, 0.4, 0.3, 0.6, 0.7]), loop.evaluate
    monkeypatch.setattr(loop, "evaluate", lambda *args: evaluate(*args) | {"loss": next(values)})
    assert call("train.py", *FLAGS, "--epochs", 5, "--checkpoint", tmp_path, "--keep-best").status == 0
    assert same(weights(tmp_path, "vae.best"), weights(uninterrupted))
    monkeypatch.setattr(loop, "evaluate", evaluate)
    assert call("train.py", *FLAGS, "--epochs", 1, "--checkpoint", tmp_path).status == 0
    assert not (tmp_path / "digits" / "vae.best").exists()  # it went with its run
    (kept,) = (tmp_path / "digits" / "previous").glob("*.best")
    flags = ("--dataset", "digits", "--checkpoint", tmp_path, "--save-path", tmp_path / "results")
    assert call("singular.py", *flags, "--model-name", f"previous/{kept.name}").status == 0
