"""deploy/: image, compose file and manifests are what their validators accept, and fit what volcast is."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from compose_spec import PyCompose
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.utilities.templating import apply_values

from benchmarks.programs import CODE
from volcast.flows.cli import app
from volcast.flows.deploy import Served, deploy, deployments_of
from volcast.flows.server import Server
from volcast.flows.task_runner import address_of
from volcast.tasks.settings import DataSettings, TrainingSettings

DEPLOY, KUBERNETES = CODE / "deploy", "1.34"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
MANIFESTS: list[dict[str, Any]] = list(yaml.safe_load_all((DEPLOY / "kubernetes" / "volcast.yaml").read_text()))
POOL: dict[str, Any] = json.loads((DEPLOY / "kubernetes" / "pool.json").read_text())
IMAGE = "registry.example/volcast:0.1"


def job() -> dict[str, Any]:
    """The manifest of a run's Job; a worker adds names, labels, Prefect's own variables and the command."""
    filled: Any = apply_values(POOL["job_configuration"]["job_manifest"], {"image": IMAGE})
    return filled


def pods() -> Iterator[dict[str, Any]]:
    """The pod of each workload, that of a run among them."""
    yield from (
        each["spec"]["template"]["spec"] for each in [*MANIFESTS, job()] if each["kind"] in ("Deployment", "Job")
    )


def test_the_dockerfile_has_no_finding() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")
    bad = DOCKERFILE.replace("USER 1000:1000", "USER root")
    assert subprocess.run([hadolint, "-"], input=bad, capture_output=True, text=True, check=False).returncode


def test_the_image_is_made_of_what_the_package_is_made_of_and_of_nothing_else() -> None:
    copied = {word for line in re.findall(r"^COPY (?!-)(.+) \S+$", DOCKERFILE, re.MULTILINE) for word in line.split()}
    project = tomllib.loads((CODE / "pyproject.toml").read_text())
    packages = {name.removeprefix("volcast.").split(".")[0] for name in project["tool"]["setuptools"]["packages"]}
    others = {
        "pyproject.toml",
        "constraints.txt",
        "prefect.yaml",
        project["project"]["readme"],
        *project["project"]["license-files"],
    }
    assert copied == packages | others
    let_through = re.findall(r"^!(.+)$", (DEPLOY / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    assert set(let_through) == copied | {"deploy/entrypoint.sh"}
    users = re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE)
    assert users == ["1000:1000"]


def test_a_secret_is_a_variable_and_what_is_written_is_private(tmp_path: Path) -> None:
    (tmp_path / "PREFECT_API_AUTH_STRING").write_text("volcast:two words\n")
    command = ["sh", "-c", 'printf "%s|" "$PREFECT_API_AUTH_STRING"; umask']
    run = [DEPLOY / "entrypoint.sh", *command]
    for secrets, said in ((tmp_path, "volcast:two words|0077"), (tmp_path / "none", "|0077")):
        env = {"PATH": os.environ["PATH"], "SECRETS": str(secrets)}
        assert subprocess.run(run, env=env, capture_output=True, text=True, check=True).stdout.strip() == said


def test_the_compose_file_is_valid_and_names_only_what_it_has() -> None:
    services = COMPOSE["services"]
    assert PyCompose.from_yaml(yaml.safe_dump(COMPOSE)).service_names() == list(services)
    with pytest.raises(ValueError, match="comand"):
        PyCompose.from_yaml(yaml.safe_dump({"services": {"server": {"image": "volcast", "comand": "volcast up"}}}))
    for service in services.values():
        assert set(service.get("secrets", [])) <= COMPOSE["secrets"].keys()
        assert {each.split(":")[0] for each in service.get("volumes", [])} <= COMPOSE["volumes"].keys()
        assert set(service.get("depends_on", {})) <= services.keys()
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert not [name for name in service["environment"] if re.search("AUTH|DATABASE|_PASSWORD$", name)]
    assert services["service"]["command"] == ["volcast", "up"]
    assert services["service"]["hostname"], "by which it knows its runs"


@pytest.mark.parametrize(
    "manifest", [*MANIFESTS, job()], ids=lambda each: f"{each['kind']} {each['metadata'].get('name')}"
)
def test_a_manifest_is_valid(manifest: dict[str, Any]) -> None:
    if (
        manifest["kind"] == "Job"
    ):  # prefect-kubernetes asks for both and for the name, Kubernetes has none of both there
        assert manifest["spec"]["template"]["spec"]["containers"][0]["name"] == "prefect-job"
        assert [manifest["spec"]["template"]["spec"].pop(name) for name in ("completions", "parallelism")] == [1, 1]
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**manifest, "specs": {}}, KUBERNETES, strict=True)


def test_a_pod_is_no_root_and_uses_what_there_is() -> None:
    known = {(each["kind"], each["metadata"]["name"]) for each in MANIFESTS}
    for pod in pods():
        assert pod["securityContext"]["runAsUser"] == 1000
        (container,) = pod["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
        for source in container.get("envFrom", []):
            assert source.get("secretRef", {}).get("name") in (None, "volcast", "server")
            assert ("ConfigMap", source.get("configMapRef", {}).get("name", "volcast")) in known
        for volume in pod["volumes"]:
            assert (
                "emptyDir" in volume or ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in known
            )
        if container.get("args", [""])[0] == "volcast":
            app.parse_args(shlex.split(" ".join(container["args"][1:])), exit_on_error=False, print_error=False)
    (config,) = (each["data"] for each in MANIFESTS if each["kind"] == "ConfigMap")
    address = str(address_of(config["VOLCAST_RUNNER"])).rpartition("/")[2]
    reached = {
        f"{each['metadata']['name']}:{each['spec']['ports'][0]['port']}"
        for each in MANIFESTS
        if each["kind"] == "Service"
    }
    assert {address, config["PREFECT_API_URL"].split("/")[2]} == reached


def test_volcast_is_deployed_to_the_pool(prefect_api: Server, tmp_path: Path) -> None:
    assert prefect_api.own
    pool = WorkPoolCreate(name="kubernetes", type="kubernetes", base_job_template=POOL)
    served = Served(DataSettings(store=str(tmp_path)), TrainingSettings())
    with get_client(sync_client=True) as client:
        client.create_work_pool(pool)  # the server asks that each variable of the template is one of the pool
        deployed = deploy(served, {"VOLCAST_POOL": "kubernetes", "VOLCAST_IMAGE": IMAGE})
        found = deployments_of(client, tags=[deployed.tag])
        assert len(found) == len(deployed.applied) > 5
        assert all((each.work_pool_name, each.job_variables) == ("kubernetes", {"image": IMAGE}) for each in found)
        client.delete_work_pool("kubernetes")
