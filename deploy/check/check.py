"""Renders the chart and checks what comes out. `make kube-check` and `make kube-render` call it; nothing is sent anywhere.

  check.py render OUT     the chart for each of its value files, as JSON, into the directory OUT
  check.py manifests      deploy/kubernetes/dwell.yaml anew
  check.py check          everything, and that the manifests are what the chart gives

HELM names the helm to use.
"""

import copy
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import jsonschema
import kubernetes_validate
import yaml

HERE = pathlib.Path(__file__).resolve().parent
DEPLOY = HERE.parent
CHART = DEPLOY / "helm" / "dwell"
VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
MANIFESTS = DEPLOY / "kubernetes" / "dwell.yaml"
HELM = os.environ.get("HELM", "helm")
NAMESPACE = "messages"
# The oldest version that the chart allows, one in the middle, and the newest whose schemas there are.
VERSIONS = ["1.27", "1.33", "1.37"]
# Kinds of other people's controllers, whose schemas Kubernetes does not have: what the chart uses of them is written down.
RESOURCES = json.loads((HERE / "resources.json").read_text())

MANIFESTS_HEAD = """\
# Three nodes, without Helm. Made from the chart by `make kube-manifests`; `make kube-check` compares. Put your image in, then
#   kubectl apply --filename dwell.yaml
# More pods join when `replicas` grows; `--founders` stays as it is. Before it becomes less, remove the members that go:
#   kubectl --namespace dwell exec dwell-0 -- /usr/local/bin/dwell pod prune --replicas COUNT \\
#     --host 'dwell-{ordinal}.dwell-peers.dwell.svc.cluster.local'
---
apiVersion: v1
kind: Namespace
metadata:
  name: dwell
  labels:
    pod-security.kubernetes.io/enforce: restricted
"""

# Values that must be refused, and what the refusal must speak of.
REFUSED = [
    ({"replicaCount": 0}, "replicaCount"),
    ({"replicas": 3}, "replicas"),
    ({"founders": 1}, "founders"),
    ({"replicaCount": 1}, "founders"),
    ({"config": {"node_id": 7}}, "config.node_id"),
    ({"lifecycle": {"terminationGracePeriodSeconds": 20}}, "terminationGracePeriodSeconds"),
    ({"config": {"stop_timeout_ms": 120000}}, "terminationGracePeriodSeconds"),
    ({"tls": {"enabled": True}}, "tls.existingSecret"),
    ({"tls": {"enabled": True, "certManager": {"enabled": True}}}, "issuerRef"),
    ({"authentication": {"enabled": True, "passwordSecret": {"name": "x"}}}, "tls.enabled"),
    ({"tls": {"enabled": True, "existingSecret": "x"}, "authentication": {"enabled": True}}, "authentication.passwordSecret"),
    ({"authentication": {"jwks": {"configMap": "x", "issuer": "https://x", "audience": "dwell"}}}, "without authentication.enabled"),
    ({"authentication": {"jwks": {"issuer": "https://x"}}}, "without configMap"),
    (
        {
            "tls": {"enabled": True, "existingSecret": "x"},
            "authentication": {"enabled": True, "passwordSecret": {"name": "x"}, "jwks": {"configMap": "x"}},
        },
        "issuer and audience say",
    ),
    ({"config": {"authentication": True}}, "config.authentication"),
    ({"clientEnv": [{"name": "DWELL_USER", "value": "x"}]}, "DWELL_PASSWORD"),
    ({"clientEnv": [{"name": "DWELL_SERVER", "value": "x"}]}, "DWELL_SERVER"),
    ({"probes": {"liveness": {"periodSeconds": 0}}}, "periodSeconds"),
    ({"persistence": {"size": "plenty"}}, "persistence"),
    ({"antiAffinity": "always"}, "antiAffinity"),
]


def helm(*arguments):
    return subprocess.run([HELM, *map(str, arguments)], capture_output=True, text=True)


def template(*arguments, namespace=NAMESPACE):
    done = helm("template", "dwell", CHART, "--namespace", namespace, *arguments)
    if done.returncode != 0:
        sys.exit(f"helm template {' '.join(map(str, arguments))}:\n{done.stderr}")
    return done.stdout


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document]


def rendered():
    """What each value file gives: a name, and its documents."""
    return {path.name.removesuffix("-values.yaml"): documents(template("--values", path)) for path in VALUES}


def manifests():
    kept = []
    for line in template("--no-hooks", namespace="dwell").splitlines():
        if not re.match(r"# Source:|\s+(helm\.sh/chart|app\.kubernetes\.io/managed-by):", line):
            kept.append(line.rstrip())
    return MANIFESTS_HEAD + "\n".join(kept) + "\n"


class Findings(list):
    def expect(self, holds, what):
        if not holds:
            self.append(what)


def place(document):
    return f"{document['kind']} {document['metadata']['name']}"


def validate(document, findings, case):
    kind = document["kind"]
    if kind in RESOURCES:
        errors = jsonschema.Draft202012Validator(RESOURCES[kind]).iter_errors(document)
        findings.extend(f"{case}: {place(document)}: {error.json_path}: {error.message}" for error in errors)
        return
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            where = "/".join(map(str, error.path))
            findings.append(f"{case}: {place(document)}: Kubernetes {version}: {where}: {error.message}")
        except kubernetes_validate.SchemaNotFoundError as error:
            findings.append(f"{case}: {place(document)}: Kubernetes {version} has no {error.kind} {error.api_version}")


def pods(document):
    if document["kind"] in ("StatefulSet", "Job"):
        yield document["spec"]["template"]


def check_pod(pod, findings, where):
    """What the restricted pod security standard asks, and more."""
    spec = pod["spec"]
    security = spec.get("securityContext", {})
    findings.expect(security.get("runAsNonRoot") is True and security.get("runAsUser", 0) > 0, f"{where} runs as root")
    findings.expect(security.get("seccompProfile") == {"type": "RuntimeDefault"}, f"{where} has no seccomp profile")
    findings.expect(spec.get("enableServiceLinks") is False, f"{where} has variables of services, named as settings are")
    findings.expect(spec.get("automountServiceAccountToken") is False, f"{where} has a token that it has no use for")
    for container in spec["containers"]:
        security = container.get("securityContext", {})
        findings.expect(security.get("readOnlyRootFilesystem") is True, f"{where} may write to its root file system")
        findings.expect(security.get("allowPrivilegeEscalation") is False, f"{where} may get more rights")
        findings.expect(security.get("capabilities") == {"drop": ["ALL"]}, f"{where} has capabilities")
        resources = container.get("resources", {})
        findings.expect("memory" in resources.get("limits", {}), f"{where} has no limit of memory")
        findings.expect("cpu" not in resources.get("limits", {}), f"{where} has a limit of processor time: see README.md")
        mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
        volumes = {volume["name"] for volume in spec.get("volumes", [])}
        volumes |= {claim["metadata"]["name"] for claim in pod.get("claims", [])}
        findings.expect(mounts <= volumes, f"{where} mounts {mounts - volumes}, which there is not")
        names = [variable["name"] for variable in container.get("env", [])]
        # Server-side apply refuses them.
        findings.expect(len(names) == len(set(names)), f"{where} has variables twice: {names}")
        # The command line looks at the file alone, whoever's it is.
        findings.expect(not {"DWELL_PASSWORD", "DWELL_PASSWORD_FILE"} <= set(names), f"{where} has two passwords")


def seconds(duration):
    return int(duration.removesuffix("s"))


def check_server(documents_of_case, findings, case):
    [server] = [document for document in documents_of_case if document["kind"] == "StatefulSet"]
    spec = server["spec"]["template"]["spec"]
    [container] = spec["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        findings.expect(probe in container, f"{case}: there is no {probe}")
    path = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    wanted = {"startupProbe": "/healthz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}
    findings.expect(path == wanted, f"{case}: the probes ask {path}")
    command = container["lifecycle"]["preStop"]["exec"]["command"]
    withdrawal = seconds(command[-1].split("=")[1])
    grace = spec["terminationGracePeriodSeconds"]
    findings.expect(grace >= withdrawal + 30, f"{case}: {grace} s of grace are too few for {withdrawal} s of withdrawal")
    findings.expect(server["spec"]["podManagementPolicy"] == "Parallel", f"{case}: founders would wait for each other")
    labels = server["spec"]["template"]["metadata"]["labels"].items()
    names = {document["metadata"]["name"] for document in documents_of_case if document["kind"] == "Service"}
    findings.expect(server["spec"]["serviceName"] in names, f"{case}: there is no service {server['spec']['serviceName']}")
    job_labels = [pod["metadata"]["labels"] for document in documents_of_case for pod in pods(document)
                  if document["kind"] == "Job"]
    for document in documents_of_case:
        selector = None
        if document["kind"] == "Service":
            selector = document["spec"]["selector"]
            ports = {port["name"] for port in container["ports"]}
            asked = {port["targetPort"] for port in document["spec"]["ports"]}
            findings.expect(asked <= ports, f"{case}: {place(document)} asks for the ports {asked - ports}")
        elif document["kind"] == "PodDisruptionBudget":
            selector = document["spec"]["selector"]["matchLabels"]
        elif document["kind"] == "NetworkPolicy":
            selector = document["spec"]["podSelector"]["matchLabels"]
        elif document["kind"] == "ServiceMonitor":
            selected = document["spec"]["selector"]["matchLabels"].items()
            found = [other for other in documents_of_case
                     if other["kind"] == "Service" and selected <= other["metadata"]["labels"].items()]
            findings.expect(len(found) == 1, f"{case}: the monitor selects {len(found)} services, so that pods count twice")
        if selector is not None:
            findings.expect(selector.items() <= labels, f"{case}: {place(document)} does not select the pods")
            findings.expect(not any(selector.items() <= other.items() for other in job_labels),
                            f"{case}: {place(document)} selects the pods of a job")


def check_rules(documents_of_case, findings, case):
    """The rules as an operator gets them are those of deploy/prometheus, and promtool takes them."""
    for document in documents_of_case:
        if document["kind"] != "PrometheusRule":
            continue
        original = yaml.safe_load((DEPLOY / "prometheus" / "dwell.rules.yaml").read_text())
        findings.expect(document["spec"] == original, f"{case}: the rules are not those of deploy/prometheus")
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(document["spec"], file)
            file.flush()
            done = subprocess.run(["promtool", "check", "rules", file.name], capture_output=True, text=True)
            findings.expect(done.returncode == 0, f"{case}: promtool: {done.stdout}{done.stderr}")


def leaves(value, path=""):
    """The values by their paths, down to what is empty or no map."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else key)
    else:
        yield path, value


def check_readme(findings):
    """Its table has each value, with its default, and no other."""
    values = dict(leaves(yaml.safe_load((CHART / "values.yaml").read_text())))
    rows = re.findall(r"^\| `([A-Za-z.]+)` \| (.+?) \| ", (CHART / "README.md").read_text(), re.MULTILINE)
    told = {path: default.strip("`") for path, default in rows}
    for path in values.keys() | told.keys():
        if path not in told or path not in values:
            findings.append(f"README.md and values.yaml: only one of them has {path}")
            continue
        default = values[path]
        spelled = {str(default), json.dumps(default), "empty" if default in ("", {}, []) else ""}
        if isinstance(default, list) and default:
            spelled.add("see values.yaml")
        findings.expect(told[path] in spelled, f"README.md: {path} is {default!r} in values.yaml, not {told[path]}")


def check_refusals(findings):
    for values, mention in REFUSED:
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(values, file)
            file.flush()
            done = helm("template", "dwell", CHART, "--values", file.name)
        findings.expect(done.returncode != 0, f"helm takes {values}")
        findings.expect(done.returncode == 0 or mention in done.stderr, f"{values}: says {done.stderr.strip()}")


def check_itself(findings, server):
    """What is wrong is found: a check that cannot fail says nothing."""
    for path, value in [
        (("spec", "replicas"), "three"),
        (("spec", "template", "spec", "containers", 0, "livenessProbe", "periodSecond"), 3),
        (("spec", "template", "spec", "containers", 0, "ports", 0, "containerPort"), "client"),
    ]:
        wrong = copy.deepcopy(server)
        inner = wrong
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        found = Findings()
        validate(wrong, found, "on purpose")
        findings.expect(len(found) == len(VERSIONS), f"a wrong {'.'.join(map(str, path))} was not noticed: {found}")
    careless = copy.deepcopy(server["spec"]["template"])
    careless["spec"]["containers"][0]["securityContext"] = {}
    found = Findings()
    check_pod(careless, found, "on purpose")
    findings.expect(len(found) >= 3, "a careless pod was not noticed")


def check_compose(findings):
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    findings.expect(len(services) == 3, f"compose.yaml has {len(services)} nodes")
    members = [[word for word in service["command"] if word.startswith("--member=")] for service in services.values()]
    findings.expect(all(others == members[0] for others in members), "compose.yaml: the nodes differ in their members")
    for number, (name, service) in enumerate(services.items(), start=1):
        findings.expect(f"--node-id={number}" in service["command"], f"compose.yaml: {name} has another number")
        wanted = f"--member={number}={name}:7601,{name}:7600"
        findings.expect(wanted in members[0], f"compose.yaml: {wanted} is no member")
        findings.expect(service.get("read_only") is True and service.get("cap_drop") == ["ALL"],
                        f"compose.yaml: {name} has more rights than it needs")


def check_container(findings, server):
    """The image and the chart agree on the binary and its user."""
    text = (DEPLOY / "container" / "Containerfile").read_text()
    stages = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    findings.expect(len(stages) == 2 and all(re.search(r":[^:]*\d|:nonroot$", stage) for stage in stages),
                    f"Containerfile: {stages} are not two bases of fixed versions")
    spec = server["spec"]["template"]["spec"]
    [entry] = re.findall(r'^ENTRYPOINT \["(.+)"\]$', text, re.MULTILINE)
    findings.expect([entry] == spec["containers"][0]["command"], f"Containerfile: the binary is {entry}")
    [user] = re.findall(r"^USER (\d+):", text, re.MULTILINE)
    findings.expect(int(user) == spec["securityContext"]["runAsUser"], f"Containerfile: the user is {user}")


def check():
    findings = Findings()
    cases = rendered()
    findings.expect(len(cases) >= 4, f"only {len(cases)} value files")
    cases["manifests"] = documents(MANIFESTS.read_text())
    for path in VALUES:
        done = helm("lint", "--strict", CHART, "--values", path)
        findings.expect(done.returncode == 0, f"helm lint {path.name}:\n{done.stdout}{done.stderr}")
    for case, documents_of_case in cases.items():
        for document in documents_of_case:
            validate(document, findings, case)
            for pod in pods(document):
                claims = document["spec"].get("volumeClaimTemplates", [])
                check_pod({**pod, "claims": claims}, findings, f"{case}: {place(document)}")
        check_server(documents_of_case, findings, case)
        check_rules(documents_of_case, findings, case)
        kinds = sorted(document["kind"] for document in documents_of_case)
        print(f"{case}: {len(kinds)} objects: {', '.join(kinds)}")
    server = next(one for one in cases["default"] if one["kind"] == "StatefulSet")
    check_itself(findings, server)
    check_container(findings, server)
    check_refusals(findings)
    check_readme(findings)
    check_compose(findings)
    findings.expect(MANIFESTS.read_text() == manifests(), f"{MANIFESTS.name} is not what the chart gives: make kube-manifests")
    if findings:
        sys.exit("\n".join(findings))
    print(f"{len(cases)} cases are valid for Kubernetes {', '.join(VERSIONS)}; {len(REFUSED)} wrong values are refused")


def main(arguments):
    match arguments:
        case ["render", out]:
            directory = pathlib.Path(out)
            directory.mkdir(parents=True, exist_ok=True)
            for name, documents_of_case in rendered().items():
                (directory / f"{name}.json").write_text(json.dumps(documents_of_case, indent=1))
        case ["manifests"]:
            MANIFESTS.write_text(manifests())
        case ["check"]:
            check()
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
