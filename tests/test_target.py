from __future__ import annotations

from pathlib import Path

import pytest

from compress.errors import RecipeError
from compress.target import load_target, profiles, project_targets

TARGET = 'schema = 1\nruntime = "onnxruntime"\nthreads = {}\n'


def write(path, threads=1, extra=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(TARGET.format(threads) + extra)
    return path


def test_every_profile_that_ships_is_a_target_of_its_own_name(tmp_path):
    assert {"onnxruntime-cpu", "litert-cpu"} <= set(profiles())
    for name in profiles():
        target = load_target(name, tmp_path)
        assert target.name == name
        assert target.description


def test_a_project_target_hides_the_profile_of_its_name(tmp_path):
    assert load_target("onnxruntime-cpu", tmp_path).threads == 1
    write(tmp_path / "targets" / "onnxruntime-cpu.toml", threads=7)
    assert load_target("onnxruntime-cpu", tmp_path).threads == 7


def test_a_path_is_taken_as_it_is_whatever_else_has_its_name(tmp_path):
    write(tmp_path / "targets" / "phone.toml", threads=2)
    write(tmp_path / "phone.toml", threads=3)
    assert load_target("phone", tmp_path).threads == 2
    assert load_target("phone.toml", tmp_path).threads == 3
    assert load_target("targets/phone.toml", tmp_path).threads == 2
    assert load_target(str(tmp_path / "phone.toml"), tmp_path / "elsewhere").threads == 3


def test_the_nearest_targets_folder_at_or_above_the_recipe_counts_alone(tmp_path):
    far = write(tmp_path / "targets" / "far.toml")
    recipe = tmp_path / "project" / "recipes" / "deep"
    recipe.mkdir(parents=True)
    assert project_targets(recipe) == {"far": far}
    near = write(tmp_path / "project" / "targets" / "near.toml")
    assert project_targets(recipe) == {"near": near}
    assert project_targets(tmp_path / "project") == {"near": near}


def test_an_unknown_target_names_the_closest_of_all_places(tmp_path):
    write(tmp_path / "targets" / "galaxy.toml")
    with pytest.raises(RecipeError, match="targets: there is no target 'galxy'") as caught:
        load_target("galxy", tmp_path)
    assert "did you mean 'galaxy'?" in caught.value.hint
    assert "litert-cpu" in caught.value.hint


def test_a_target_gets_the_name_of_its_file_unless_it_has_one(tmp_path):
    write(tmp_path / "a.toml")
    write(tmp_path / "b.toml", extra='name = "other"\n')
    assert load_target("a.toml", tmp_path).name == "a"
    assert load_target("b.toml", tmp_path).name == "other"


def test_a_missing_target_file_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"lost\.toml: No such file"):
        load_target("lost.toml", tmp_path)


WRONG = [
    ("thread = 1\n", "unknown key 'thread'", "did you mean 'threads'?"),
    ("[budgets]\nlatency = 1\n", "unknown key 'budgets.latency'", "did you mean 'latency_ms'?"),
    ("[budgets]\nlatency_ms = 0\n", "budgets.latency_ms must be greater than 0; got 0", ""),
    ("[budgets]\nlatency_ms = inf\n", "budgets.latency_ms must be a finite number; got inf", ""),
    ("[budgets]\nsize_bytes = 1.5\n", "budgets.size_bytes must be a valid integer; got 1.5", ""),
    ('cpu = "haswel"\n', "cpu: there is no processor 'haswel': did you mean 'haswell'?", ""),
    ('host = "moon"\n', "host must be", ""),
    ('host = "emulated"\n', 'host = "emulated" needs the key cpu, one of nehalem, ', ""),
    ('host = "emulated"\ncpu = "alder-lake"\n', 'host = "emulated" needs the key cpu, one of nehalem, ', ""),
    (
        'host = "emulated"\ncpu = "haswell"\n[budgets]\nlatency_ms = 5\n',
        "budgets.latency_ms: an emulated processor gives answers and no times",
        "",
    ),
    ('name = "../x"\n', "name must match", ""),
    ("schemes = 3\n", "schemes must be a list; got 3", ""),
]


@pytest.mark.parametrize(("extra", "message", "hint"), WRONG, ids=[case[0].splitlines()[-1] for case in WRONG])
def test_a_wrong_target_file_is_named_with_key_and_value(tmp_path, extra, message, hint):
    path = write(tmp_path / "t.toml", extra=extra)
    with pytest.raises(RecipeError) as caught:
        load_target("t.toml", tmp_path)
    assert caught.value.message.startswith(f"{path}: {message}")
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("schema", "message"), [("2", "this version reads schema = 1; got 2"), ("true", "valid integer")]
)
def test_another_schema_is_refused(tmp_path, schema, message):
    path = tmp_path / "t.toml"
    path.write_text(f'schema = {schema}\nruntime = "litert"\n')
    with pytest.raises(RecipeError, match=message):
        load_target("t.toml", tmp_path)


@pytest.mark.parametrize("threads", ["0", "257", "true", "1.5"])
def test_threads_are_a_whole_positive_number(tmp_path, threads):
    write(tmp_path / "t.toml", threads=threads)
    with pytest.raises(RecipeError, match="threads must be"):
        load_target("t.toml", tmp_path)


OURS = sorted((Path(__file__).resolve().parents[1] / "targets").glob("*.toml"))


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_the_repository_s_own_targets_hold_to_the_schema(path):
    target = load_target(str(path), path.parent)
    assert (target.name, bool(target.description)) == (path.stem, True)
    assert (target.host == "emulated") is path.stem.startswith("emulated-")


def test_a_class_of_processors_can_be_named(tmp_path):
    write(tmp_path / "t.toml", extra='cpu = "cascade-lake"\n')
    assert load_target("t.toml", tmp_path).cpu == "cascade-lake"
    write(tmp_path / "t.toml", extra='cpu = "cortex-a53"\nhost = "emulated"\n')
    assert load_target("t.toml", tmp_path).host == "emulated"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('runtime = "torch"\nprovider = "tensorrt"', "provider: torch has no 'tensorrt'"),
        ('runtime = "litert"\nprovider = "cuda"', "provider: litert has no 'cuda'"),
        ('runtime = "onnxruntime"\ncompile = true', "compile is a setting of torch; the runtime is 'onnxruntime'"),
        ('runtime = "onnxruntime"\nprovider = "tensorrt"', 'takes files of flavour = "tensorrt"'),
        ('runtime = "tensorrt"', 'TensorRT takes flavour = "tensorrt"'),
        ('runtime = "tensorrt"\nflavour = "tensorrt"', "provider: tensorrt has no 'cpu': known: cuda"),
        ('runtime = "torch"\nprovider = "rocm"', "provider must be 'cpu', 'cuda', 'tensorrt' or 'nv-tensorrt-rtx'"),
    ],
)
def test_a_provider_that_a_runtime_does_not_have_is_refused(tmp_path, text, said):
    (tmp_path / "gpu.toml").write_text(f"schema = 1\n{text}\n")
    with pytest.raises(RecipeError) as caught:
        load_target("gpu.toml", tmp_path)
    assert said in caught.value.message


def test_a_job_carries_what_a_target_sets(tmp_path):
    assert load_target("tensorrt", tmp_path).job_settings == {"provider": "cuda"}
    assert load_target("torch-compile-cuda", tmp_path).job_settings == {"provider": "cuda", "compile": True}
    assert load_target("onnxruntime-cpu", tmp_path).job_settings == {}


EXAMPLES = sorted((Path(__file__).parent.parent / "targets").glob("*.toml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_a_target_and_says_where_its_figures_come_from(path):
    target = load_target(str(path), path.parent)
    assert target.name == path.stem
    assert target.description
    comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(line.startswith("# Figures: ") for line in comment)
    budgets = target.budgets
    if target.host == "emulated":
        assert budgets.latency_ms is None
    else:
        assert budgets.latency_ms and budgets.size_bytes and budgets.memory_bytes
    if target.host != "local":
        # Nobody's own machine stands in a public file.
        assert target.cpu != "native"
        assert target.ssh is None or target.ssh.address.endswith(".local")
        assert target.adb is None or target.adb.serial is None


def test_the_examples_cover_the_places_that_models_are_made_for():
    hosts = {path.stem: load_target(str(path), path.parent).host for path in EXAMPLES}
    assert {hosts[name] for name in ("ci-x86", "any-x86")} == {"local"}
    assert {hosts[name] for name in ("raspberry-pi-5", "jetson-orin-nano")} == {"ssh"}
    assert {hosts[name] for name in ("android-mid-range", "android-low-end")} == {"adb"}
    assert {hosts[f"emulated-{name}"] for name in ("cortex-a53", "cortex-a76", "haswell")} == {"emulated"}
