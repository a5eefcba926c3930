"""A stub of a Kubernetes API, as a pod finds it, and the command of such a pod."""

import pytest

from components.nodes import api, follow, on_nodes
from components.process import messages
from tests.components.nodes.pod import documented_rules
from tests.servers.certificates import self_signed
from tests.servers.trainer_stub import NAMESPACE, POD_NAME, TOKEN, TrainerStub


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def stub(tmp_path, certificate, monkeypatch, isolated_environment):
    """The API of the cluster that this process thinks to run in, as Kubernetes tells a pod."""
    authority, context = certificate
    account = tmp_path / "serviceaccount"
    account.mkdir()
    (account / "token").write_text(f"{TOKEN}\n")
    (account / "namespace").write_text(NAMESPACE)
    (account / "ca.crt").write_bytes(authority.read_bytes())
    monkeypatch.setattr(api, "SERVICE_ACCOUNT", account)
    monkeypatch.setattr(follow, "SECONDS_BETWEEN_LOOKS", 0.01)
    monkeypatch.setattr(on_nodes, "SECONDS_BETWEEN_LOOKS", 0.01)
    monkeypatch.setattr(messages, "TERMINATION_LOG", tmp_path / "termination-log")
    (tmp_path / "termination-log").touch()
    monkeypatch.setenv("HOSTNAME", POD_NAME)
    monkeypatch.delenv("KFP_POD_NAME", raising=False)
    with TrainerStub().running(context) as server:
        server.rules = documented_rules()
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
        yield server
