"""The plan of reproduce.py: each training once, keys that follow the configuration, keys of earlier versions."""

import dataclasses

import pytest
from PIL import Image

import reproduce
from experiments import train_flags
from experiments.columns import plausible
from experiments.plan import Plan, configuration, hash_of, make_plan
from experiments.results import collect
from experiments.run import RunConfig
from experiments.tables import TABLES

IMAGE_TABLES = ("depth", "shape", "variance", "latent-dim", "baselines", "isometry", "isometry-celeba", "models")


def planned(*words: object) -> Plan:
    return make_plan(reproduce.make_parser().parse_args([*map(str, words)]))


def keys_of(*words: object) -> set[str]:
    return {key for group in planned(*words).groups.values() for key in group.tasks}


def test_every_table_can_be_planned_and_shares_its_trainings():
    plan = planned("all", "--seeds", 2)
    assert set(plan.rows) == set(TABLES)
    for name, rows in plan.rows.items():
        assert [row.label for row, _ in rows] == [row.label for row in TABLES[name].rows]
        assert len({row.label for row, _ in rows}) == len(rows)
    by_label = {row.label: pairs for row, pairs in plan.rows["depth"] + plan.rows["variance"]}
    assert by_label["l = 8"][0][1] is by_label["1x"][0][1]  # one training, one evaluation, two tables
    assert by_label["l = 8"][0][0] is not by_label["l = 8"][1][0]  # another seed is another training
    classified = {row.label: pairs for row, pairs in plan.rows["classification"]}
    for codes in ("the encoder's code", "the full code"):
        assert classified[f"IRMAE, l = 8: {codes}"][0][0] is by_label["l = 8"][0][0]
    assert not any(group.training for group, _ in classified["supervised"])
    keys = [task.key for group in plan.groups.values() for task in group.tasks.values()]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("table", IMAGE_TABLES)
def test_the_command_trains_what_the_plan_says(table):
    plan = planned(table, "--epochs", 7, "--seed", 3, "--batch-size", 64, "--precision", "bf16")
    for group in plan.groups.values():
        assert RunConfig.from_args(train_flags.parse(group.training.command[1:])) == group.training.run


def test_cells_and_checkpoints_of_earlier_versions_keep_their_keys():
    """Names that commit a6b1768 gave: a cell or a training that was finished then is never made again.

    Isometry's cells are: they were of other pairs.
    """
    plan = planned(
        "depth", "--dataset", "digits", "--epochs", 3, "--seed", 5, "--batch-size", 64, "--precision", "bf16"
    )
    assert list(plan.groups["ae-236e7f0209"].tasks) == ["9c6043a270"]
    assert list(plan.groups["irmae-166783df14"].tasks) == ["a7e23365cd"]
    tables = [name for name in TABLES if name not in ("shape", "models", "anomaly", "isometry", "isometry-celeba")]
    groups = planned(*tables, "--seeds", 2, "--epochs", 5).groups
    for group in groups.values():
        for task in list(group.tasks.values()):
            del group.tasks[task.key]
            # Earlier cells are of posterior means, full codes, balanced subsets and CelebA's crop of 148.
            task.config["flags"].pop("--posterior", None)
            task.config["flags"].pop("--subset", None)
            if group.training and task.config["training"]["data"].pop("crop", None):
                group.name = f"{group.training.run.model}-{hash_of(task.config['training'])}"
            later = ("--models", "dagmm-no-residual"), ("--codes", "encoder")  # no earlier version had these
            if not any(task.config["flags"].get(flag) == value for flag, value in later):
                task.key = hash_of(task.config)
                group.tasks[task.key] = task
                group.name = group.name if group.training else task.key
    runs = {name: group.training.run for name, group in groups.items() if group.training}
    # RAE and WAE in table 5 have their own publications' configurations now.
    changed = [name for name, each in runs.items() if each.model in ("rae", "wae-mmd") and each.dataset == "celeba"]
    found = {group.name: sorted(group.tasks) for name, group in groups.items() if group.tasks and name not in changed}
    assert hash_of(found) == "8e6f2dc1bd"


def test_cells_of_anomaly_detection_say_which_features():
    """Earlier cells, RaDOGAGA's without the residual and DAGMM's with it, are no cells of today's table."""
    flags = [task.config["flags"] for group in planned("anomaly").groups.values() for task in group.tasks.values()]
    assert len(flags) == 24 and all(("--residual" in each) != ("--no-residual" in each) for each in flags)


def test_cells_of_a_distribution_name_the_codes_that_they_are_of():
    flags = {group.training.run.model: [task.config["flags"].get("--posterior") for task in group.tasks.values()]
             for group in planned("isometry").groups.values()}  # fmt: skip
    assert flags["vae"] == flags["beta-vae"] == ["sample"]
    assert flags["ae"] == flags["radogaga"] == flags["wae-mmd"] == [None]
    classified = [task for group in planned("classification").groups.values() for task in group.tasks.values()]
    assert len(classified) == 20
    full = [task for task in classified if "full" in task.command]
    assert len(full) == 4 and not any("--codes" in task.config["flags"] for task in full)
    assert sum(task.config["flags"].get("--codes") == "encoder" for task in classified) == 4
    assert not any("--posterior" in task.config["flags"] for task in classified)  # posterior means, as released


def test_keys_tell_the_images_of_a_publication_apart():
    def images(*words: object) -> list[dict]:
        return [group.training.config["data"] for group in planned(*words).groups.values() if group.training]

    assert all(each["crop"] == 178 for each in images("isometry-celeba"))
    assert not any("crop" in each for each in images("latent-dim"))  # 148, as cells of earlier versions
    assert all(each["squares"] == "released" for each in images("depth", "--dataset", "shape"))
    supervised = [task.config for group in planned("classification", "--dataset", "shape").groups.values()
                  for task in group.tasks.values() if not group.training]  # fmt: skip
    assert supervised and all(config["data"] == {"squares": "released"} for config in supervised)


def test_a_table_may_have_a_budget_of_its_own():
    for epochs, expected in ((100, 10), (1, 1), (200, 20)):
        plan = planned("isometry", "--epochs", epochs)
        assert {group.training.run.epochs for group in plan.groups.values()} == {expected}
        assert {group.training.run.batch_size for group in plan.groups.values()} == {128}
        assert all(group.training.config["epochs"] == expected for group in plan.groups.values())


def test_a_report_names_every_number_of_epochs():
    for table, expected in (("depth", 100), ("isometry", 10), ("baselines", "55, 70, 100")):
        args = reproduce.make_parser().parse_args([table])
        found = collect(make_plan(args), args, {}, {}, {table: ""})
        assert found[table].budget["epochs"] == expected


def test_keys_follow_the_configuration():
    base = keys_of("depth", "--epochs", 5)
    assert base == keys_of("depth", "--epochs", 5, "--data-path", "/elsewhere", "--jobs", 2)
    for change in (("--epochs", 6), ("--epochs", 5, "--seed", 1), ("--epochs", 5, "--dataset", "digits"),
                   ("--epochs", 5, "--batch-size", 64), ("--epochs", 5, "--fid-samples", 500)):  # fmt: skip
        assert not base & keys_of("depth", *change), change


def test_neither_the_place_of_the_data_nor_eager_execution_is_part_of_a_key():
    (group, *_) = planned("depth", "--epochs", 5).groups.values()
    elsewhere = dataclasses.replace(group.training.run, data_path="/elsewhere", eager=True)
    assert configuration(elsewhere, 5) == group.training.config


def test_a_folder_is_known_by_its_place_and_its_files(tmp_path):
    for split in ("train", "test"):
        (tmp_path / "a" / split).mkdir(parents=True)
        Image.new("L", (20, 20)).save(tmp_path / "a" / split / "1.png")
    base = ("classification", "--dataset", "folder", "--data-path", tmp_path / "a", "--image-size", 32)
    before = keys_of(*base)
    assert keys_of(*base) == before
    for change in ((*base[:3], "--data-path", tmp_path / "b", "--image-size", 32), (*base, "--channels", 1)):
        assert not before & keys_of(*change), change
    args = reproduce.make_parser().parse_args([*map(str, base)])
    assert keys_of(*reproduce.command_line(args, ["classification"], reproduce.PLACES - {"data_path"})) == before
    trained = {name for name, group in planned(*base).groups.items() if group.training}
    Image.new("L", (20, 20)).save(tmp_path / "a" / "train" / "2.png")
    assert trained and not trained & planned(*base).groups.keys()


def test_the_published_toy_data_is_used_where_it_lies(tmp_path):
    (tmp_path / "toy.csv").write_text("")
    assert not keys_of("density") & keys_of("density", "--data-path", tmp_path)


def test_all_leaves_out_what_a_data_set_cannot_have(capsys):
    plan = planned("all", "--dataset", "celeba")
    assert set(plan.rows) == set(TABLES) - {"classification"}
    assert "classification is left out: --dataset celeba has no labels" in capsys.readouterr().err


def test_the_command_below_a_table_asks_for_the_same_cells():
    words = ("depth", "--epochs", 3, "--seed", 5, "--batch-size", 64, "--precision", "bf16", "--dataset", "digits")
    args = reproduce.make_parser().parse_args([*map(str, words)])
    line = reproduce.command_line(args, ["depth"], reproduce.PLACES)
    assert keys_of(*line) == keys_of(*words)
    assert not keys_of(*words) & keys_of(*words[:7], *words[9:]), "another precision is another cell"


def test_published_numbers_belong_to_rows():
    for table in TABLES.values():
        for metric, numbers in table.published.items():
            assert metric in table.columns and len(numbers) == len(table.rows)
        assert {metric for _, metric in table.claims} | set(table.figure) <= set(table.columns)


@pytest.mark.parametrize(("metric", "value", "expected"), [
    ("accuracy_100", 0.93, True), ("accuracy_100", 7.0, False), ("f1", 1.2, False), ("isometry", -0.4, True),
    ("isometry", 1.5, False), ("mse", 3.0, True), ("mse", float("nan"), False), ("mse", "0.1", False),
])  # fmt: skip
def test_numbers_that_can_be_those_of_a_metric(metric, value, expected):
    assert plausible(metric, value) == expected
