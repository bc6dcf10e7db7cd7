"""The checks of vhosts, users, permissions, parameters and policies."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from amqpd.broker.access import pattern_faults
from amqpd.broker.definitions import (
    GlobalParameterDefinition,
    ParameterDefinition,
    PermissionDefinition,
    PolicyDefinition,
    TopicPermissionDefinition,
    UserDefinition,
    VhostDefinition,
)
from amqpd.broker.limits import LIMITS_OF_USERS, LIMITS_OF_VHOSTS
from amqpd.broker.parameters import BEGUN_IMPORT, LIMITS, VHOST_LIMITS
from amqpd.broker.passwords import SALTED_HASHES, SCRYPT, SHA256
from amqpd.broker.policy import keys_without_effect, plain_policy_faults
from amqpd.broker.scram import read_verifier
from amqpd.management.definitions_json.checks import Checks
from amqpd.management.definitions_json.entries import Entry
from amqpd.management.definitions_json.exporting import LOADED_HASH, OPERATOR_POLICY
from amqpd.management.definitions_json.kept import KEPT

POLICY = "policy"
QUEUE_TYPES = ("classic", "quorum", "stream")
# Parameters that say what a broker is, and do nothing.
IDLE_GLOBAL_PARAMETERS = ("cluster_name", "cluster_tags", "internal_cluster_id", "imported_definition_hash_value")

_VHOST_KEYS = ("name", "description", "tags", "metadata", "limits", "default_queue_type", "tracing",
               "protected_from_deletion", "cluster_state")
_METADATA_KEYS = ("description", "tags", "default_queue_type", "protected_from_deletion")
_USER_KEYS = ("name", "password", "password_hash", "hashing_algorithm", "tags", "limits", "scram_sha256")
_POLICY_KEYS = ("vhost", "name", "pattern", "definition", "priority", "apply-to")


def _default_queue_type(entry: Entry) -> str:
    kind = entry.text("default_queue_type")
    if kind == "undefined":         # as RabbitMQ 3.11 lists a vhost without one
        return ""
    if kind not in QUEUE_TYPES:
        entry.refuse("default_queue_type", f"is '{kind}', it has to be one of {', '.join(QUEUE_TYPES)}")
    return kind


def _check_patterns(entry: Entry, permission: PermissionDefinition | TopicPermissionDefinition) -> None:
    for right, reason in pattern_faults(permission):
        entry.refuse(right, f"should be regular expression but is invalid: {reason}")


def _has_hash_of(user: UserDefinition, other: UserDefinition) -> bool:
    return (user.password_hash, user.hashing_algorithm) == (other.password_hash, other.hashing_algorithm)


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except ValueError:
        return False
    return True


_READ_METADATA: Mapping[str, Callable[[Entry], Any]] = {
    "description": lambda entry: entry.text("description"),
    "tags": lambda entry: entry.tags(),
    "default_queue_type": _default_queue_type,
    "protected_from_deletion": lambda entry: entry.flag("protected_from_deletion", False),
}


class AccessChecks:
    """Checks the objects that say who may do what, and how the broker is set up."""

    def __init__(self, checks: Checks) -> None:
        self._checks = checks
        self._plan = checks.plan
        self._broker = checks.broker

    # Vhosts

    def check_vhost(self, entry: Entry) -> None:
        """Check a vhost. What the file does not say stays as it is."""
        entry.warn_of_unknown(_VHOST_KEYS)
        name = entry.name("name")
        known = self._broker.vhost_definitions.get(name, VhostDefinition(name))
        wanted = replace(known, **self._metadata(entry))
        limits = entry.limits("limits", LIMITS_OF_VHOSTS)
        if entry.values.get("tracing") is True:
            entry.warn("tracing", "amqpd has no tracing; it is off")
        self._checks.default_types[name] = wanted.default_queue_type
        if self._checks.is_first(entry, "vhost", name):
            self._plan.vhosts[name] = wanted
            if limits:      # a parameter of the same file replaces it
                self._plan.add_parameter(ParameterDefinition(name, VHOST_LIMITS, LIMITS, limits))
        else:
            self._checks.note_faulty("vhost", "", name)

    def _metadata(self, entry: Entry) -> dict[str, Any]:
        """Return what is said of a vhost, in "metadata" or beside them; the latter counts."""
        metadata = Entry(entry.value("metadata", dict, {}), entry.at("metadata"), self._checks.report)
        metadata.warn_of_unknown(_METADATA_KEYS)
        found: dict[str, Any] = {}
        for source in (metadata, entry):
            for key, read in _READ_METADATA.items():
                if source.values.get(key) is not None:
                    found[key] = read(source)
        entry.is_valid &= metadata.is_valid
        return found

    # Users and permissions

    def check_user(self, entry: Entry) -> None:
        """Check a user."""
        entry.warn_of_unknown(_USER_KEYS)
        name = entry.name("name")
        password_hash, password = entry.text("password_hash", ""), entry.text("password", "")
        algorithm = entry.text("hashing_algorithm", SHA256)
        user = UserDefinition(
            name, password_hash, algorithm, entry.tags(), entry.text("scram_sha256", ""),
            entry.limits("limits", LIMITS_OF_USERS))
        known = self._broker.users.get(name)
        if known is not None and _has_hash_of(user, known.definition) and not user.scram_sha256:
            user = replace(user, scram_sha256=known.definition.scram_sha256)    # it belongs to the same password
        if algorithm not in (*SALTED_HASHES, SCRYPT):
            entry.refuse("hashing_algorithm", f"'{algorithm}' is not known; there are "
                                              f"{', '.join(SALTED_HASHES)} and {SCRYPT}")
        if not _is_base64(password_hash):
            entry.refuse("password_hash", "is not base64")
        verifier = entry.values.get("scram_sha256")
        if verifier and isinstance(verifier, str) and read_verifier(verifier) is None:
            entry.refuse("scram_sha256", "is not a verifier of the form SCRAM-SHA-256$iterations:salt$stored key:"
                                         "server key, each of them base64")
        if password and password_hash:
            entry.refuse(None, "has both password and password_hash, allowed is one of them")
        if self._checks.is_first(entry, "user", name):
            self._plan.users[name] = user
            if password:
                self._plan.passwords[name] = password
            elif entry.values.get("password_hash") is None:      # exports have "" for users that log in otherwise
                entry.warn(None, f"'{name}' has neither password nor password_hash and cannot log in with a password")
        else:
            self._checks.note_faulty("user", "", name)

    def check_permission(self, entry: Entry) -> None:
        """Check the permissions of a user in a vhost."""
        entry.warn_of_unknown(("user", "vhost", "configure", "write", "read"))
        permission = PermissionDefinition(
            self._checks.user_of(entry), self._checks.vhost_of(entry), entry.text("configure"), entry.text("write"),
            entry.text("read"))
        _check_patterns(entry, permission)
        if self._checks.is_first(entry, "permission", permission.user, permission.vhost):
            self._plan.permissions.append(permission)

    def check_topic_permission(self, entry: Entry) -> None:
        """Check the topic permissions of a user."""
        entry.warn_of_unknown(("user", "vhost", "exchange", "write", "read"))
        permission = TopicPermissionDefinition(
            self._checks.user_of(entry), self._checks.vhost_of(entry), entry.name("exchange", may_be_empty=True),
            entry.text("write"), entry.text("read"))
        _check_patterns(entry, permission)
        if self._checks.is_first(entry, "topic permission", permission.user, permission.vhost, permission.exchange):
            self._plan.topic_permissions.append(permission)

    # Parameters and policies

    def check_parameter(self, entry: Entry) -> None:
        """Check a parameter of a vhost; operator policies and limits are among them."""
        entry.warn_of_unknown(("vhost", "component", "name", "value"))
        vhost, component, name = self._checks.vhost_of(entry), entry.name("component"), entry.name("name")
        if "value" not in entry.values:
            entry.refuse(None, "has no value")
        if component in KEPT.values():
            entry.refuse("component", "is reserved for what amqpd keeps of other brokers")
        if component in (OPERATOR_POLICY, POLICY):
            of_policy = Entry(
                {**entry.value("value", dict), "vhost": vhost, "name": name}, entry.at("value"), self._checks.report)
            if entry.is_valid:
                self._add_policy(of_policy, vhost, is_operator=component == OPERATOR_POLICY)
            return
        value = entry.values.get("value")
        if component == VHOST_LIMITS:
            value = entry.limits("value", LIMITS_OF_VHOSTS)
            if name != LIMITS:
                entry.refuse("name", f"has to be {LIMITS!r} for this component")
        elif entry.is_valid:
            entry.warn(None, f"parameters of the component '{component}' have no effect in amqpd; it is kept")
        if self._checks.is_first(entry, "parameter", vhost, component, name):
            self._plan.add_parameter(ParameterDefinition(vhost, component, name, value))

    def check_global_parameter(self, entry: Entry) -> None:
        """Check a parameter of the broker."""
        entry.warn_of_unknown(("name", "value"))
        name = entry.name("name")
        if "value" not in entry.values:
            entry.refuse(None, "has no value")
        if name in (LOADED_HASH, BEGUN_IMPORT):
            return
        if name not in IDLE_GLOBAL_PARAMETERS and entry.is_valid:
            entry.warn(None, f"the global parameter '{name}' has no effect in amqpd; it is kept")
        if self._checks.is_first(entry, "global parameter", name):
            self._plan.global_parameters.append(GlobalParameterDefinition(name, entry.values["value"]))

    def check_policy(self, entry: Entry) -> None:
        """Check a policy."""
        self._add_policy(entry, self._checks.vhost_of(entry), is_operator=False)

    def _add_policy(self, entry: Entry, vhost: str, *, is_operator: bool) -> None:
        entry.warn_of_unknown(_POLICY_KEYS)
        definition = entry.values.get("definition")
        policy = PolicyDefinition(
            vhost, entry.name("name"), entry.text("pattern"),
            {} if definition == [] else entry.value("definition", dict), entry.number("priority", 0),
            entry.text("apply-to", "all"), is_operator)
        if isinstance(definition, (dict, list)):        # else that has been told
            for fault in plain_policy_faults(policy):
                entry.refuse(None, fault)
        useless = keys_without_effect() & policy.definition.keys()
        if useless and entry.is_valid:
            entry.warn("definition", f"{', '.join(sorted(useless))}: no effect in amqpd; kept")
        if self._checks.is_first(entry, "operator policy" if is_operator else "policy", vhost, policy.name):
            self._plan.policies.append(policy)
