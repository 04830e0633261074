"""What breaks the contract is refused, with the parameter and the word for it."""

import json

import pytest

POLICY = {"type": "allowlist", "allowed_domains": ["a.com"]}
SECRET = {"domain": "a.com", "name": "n", "value": "v"}
SOURCE = {"type": "base64", "media_type": "application/zip", "data": "UEs="}
INLINE = {"type": "inline", "name": "n", "description": "d", "source": SOURCE}
REFERENCE = {"type": "skill_reference", "skill_id": "s"}


def refused(answer):
    status, headers, body = answer
    assert headers["content-type"] == "application/json"
    error = json.loads(body)["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    return status, error["param"], error["code"]


def post(server, body):
    return server.exchange(
        "POST", "/v1/containers", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )


@pytest.mark.parametrize("collection", ["/v1/containers", "/v1/containers/{}/files"])
@pytest.mark.parametrize(
    ("query", "param", "code"),
    [
        ("limit=0", "limit", "integer_below_min_value"),
        ("limit=-5", "limit", "integer_below_min_value"),
        ("limit=101", "limit", "integer_above_max_value"),
        ("limit=99999999999999999", "limit", "integer_above_max_value"),
        ("limit=ten", "limit", "invalid_type"),
        ("limit=1.0", "limit", "invalid_type"),
        ("limit=", "limit", "invalid_type"),
        ("limit=%D9%A3", "limit", "invalid_type"),
        ("limit=" + "9" * 5000, "limit", "invalid_type"),
        ("order=up", "order", "invalid_value"),
        ("order=", "order", "invalid_value"),
        ("after=cntr_unknown", "after", "invalid_value"),
        ("after=", "after", "invalid_value"),
    ],
)
def test_a_bad_list_query_is_refused(shared_server, collection, query, param, code):
    path = collection.format(shared_server.new_container())
    assert refused(shared_server.exchange("GET", f"{path}?{query}")) == (400, param, code)


def test_query_parameters_nobody_knows_are_ignored(shared_server):
    shared_server.call("GET", "/v1/containers?api-version=preview&limit=1&limit=2&x")


@pytest.mark.parametrize("limit", [1, 100])
def test_the_bounds_of_limit_are_allowed(shared_server, limit):
    shared_server.call("GET", f"/v1/containers?limit={limit}")


@pytest.mark.parametrize(
    ("members", "param", "code"),
    [
        ({"name": None}, "name", "invalid_type"),
        ({"name": 5}, "name", "invalid_type"),
        ({"name": "\ud800"}, "name", "invalid_value"),
        ({"colour": "red"}, "colour", "unknown_parameter"),
        ({"memory_limit": "2g"}, "memory_limit", "invalid_value"),
        ({"memory_limit": 4}, "memory_limit", "invalid_type"),
        ({"expires_after": 20}, "expires_after", "invalid_type"),
        ({"expires_after": {"minutes": 5}}, "expires_after.anchor", "missing_required_parameter"),
        (
            {"expires_after": {"anchor": "last_active_at"}},
            "expires_after.minutes",
            "missing_required_parameter",
        ),
        (
            {"expires_after": {"anchor": "created_at", "minutes": 5}},
            "expires_after.anchor",
            "invalid_value",
        ),
        (
            {"expires_after": {"anchor": "last_active_at", "minutes": 5, "hours": 1}},
            "expires_after.hours",
            "unknown_parameter",
        ),
        *(
            (
                {"expires_after": {"anchor": "last_active_at", "minutes": minutes}},
                "expires_after.minutes",
                code,
            )
            for minutes, code in [
                (0, "integer_below_min_value"),
                (-1, "integer_below_min_value"),
                (21, "integer_above_max_value"),
                (10**30, "integer_above_max_value"),
                (5.0, "invalid_type"),
                ("5", "invalid_type"),
                (True, "invalid_type"),
                (None, "invalid_type"),
            ]
        ),
        ({"file_ids": "file-a"}, "file_ids", "invalid_type"),
        ({"file_ids": [1]}, "file_ids[0]", "invalid_type"),
        ({"network_policy": "disabled"}, "network_policy", "invalid_type"),
        ({"network_policy": {}}, "network_policy.type", "missing_required_parameter"),
        ({"network_policy": {"type": "open"}}, "network_policy.type", "invalid_value"),
        ({"network_policy": {"type": ["disabled"]}}, "network_policy.type", "invalid_type"),
        (
            {"network_policy": {"type": "disabled", "allowed_domains": ["a"]}},
            "network_policy.allowed_domains",
            "unknown_parameter",
        ),
        (
            {"network_policy": {"type": "allowlist"}},
            "network_policy.allowed_domains",
            "missing_required_parameter",
        ),
        (
            {"network_policy": {"type": "allowlist", "allowed_domains": []}},
            "network_policy.allowed_domains",
            "empty_array",
        ),
        (
            {"network_policy": {"type": "allowlist", "allowed_domains": [None]}},
            "network_policy.allowed_domains[0]",
            "invalid_type",
        ),
        (
            {"network_policy": {**POLICY, "domain_secrets": []}},
            "network_policy.domain_secrets",
            "empty_array",
        ),
        (
            {"network_policy": {**POLICY, "domain_secrets": [{"domain": "a.com", "name": "n"}]}},
            "network_policy.domain_secrets[0].value",
            "missing_required_parameter",
        ),
        (
            {"network_policy": {**POLICY, "domain_secrets": [SECRET, {**SECRET, "value": ""}]}},
            "network_policy.domain_secrets[1].value",
            "empty_string",
        ),
        (
            {"network_policy": {**POLICY, "domain_secrets": [{**SECRET, "value": "v" * 10485761}]}},
            "network_policy.domain_secrets[0].value",
            "string_above_max_length",
        ),
        ({"skills": {}}, "skills", "invalid_type"),
        ({"skills": ["s"]}, "skills[0]", "invalid_type"),
        ({"skills": [{"skill_id": "s"}]}, "skills[0].type", "missing_required_parameter"),
        ({"skills": [{"type": "other"}]}, "skills[0].type", "invalid_value"),
        (
            {"skills": [{"type": "skill_reference"}]},
            "skills[0].skill_id",
            "missing_required_parameter",
        ),
        ({"skills": [{**REFERENCE, "skill_id": ""}]}, "skills[0].skill_id", "empty_string"),
        (
            {"skills": [REFERENCE, {**REFERENCE, "skill_id": "s" * 65}]},
            "skills[1].skill_id",
            "string_above_max_length",
        ),
        ({"skills": [{**REFERENCE, "version": "0"}]}, "skills[0].version", "invalid_value"),
        ({"skills": [{**REFERENCE, "version": 1}]}, "skills[0].version", "invalid_type"),
        ({"skills": [{**REFERENCE, "x": 1}]}, "skills[0].x", "unknown_parameter"),
        ({"skills": [{"type": "inline"}]}, "skills[0].name", "missing_required_parameter"),
        ({"skills": [{**INLINE, "source": 1}]}, "skills[0].source", "invalid_type"),
        (
            {"skills": [{**INLINE, "source": {**SOURCE, "type": "url"}}]},
            "skills[0].source.type",
            "invalid_value",
        ),
        (
            {"skills": [{**INLINE, "source": {**SOURCE, "media_type": "text/plain"}}]},
            "skills[0].source.media_type",
            "invalid_value",
        ),
        (
            {"skills": [{**INLINE, "source": {**SOURCE, "data": ""}}]},
            "skills[0].source.data",
            "empty_string",
        ),
        (
            {"skills": [{**INLINE, "source": {**SOURCE, "data": "not base64!"}}]},
            "skills[0].source.data",
            "invalid_value",
        ),
        (
            {"skills": [{**INLINE, "source": {**SOURCE, "data": "A" * 70254596}}]},
            "skills[0].source.data",
            "string_above_max_length",
        ),
    ],
)
def test_a_bad_container_is_refused(shared_server, members, param, code):
    count = len(shared_server.call("GET", "/v1/containers?limit=100")["data"])
    assert refused(post(shared_server, {"name": "x", **members})) == (400, param, code)
    assert len(shared_server.call("GET", "/v1/containers?limit=100")["data"]) == count


@pytest.mark.parametrize(
    "members",
    [
        {"name": ""},
        *({"memory_limit": limit} for limit in ("1g", "4g", "16g", "64g")),
        *({"expires_after": {"anchor": "last_active_at", "minutes": n}} for n in (1, 20)),
        {"network_policy": {"type": "disabled"}},
        {"network_policy": {**POLICY, "domain_secrets": [SECRET]}},
        {"skills": []},
        {"skills": [{**REFERENCE, "version": "12"}, INLINE]},
        {"file_ids": []},
    ],
)
def test_what_the_contract_allows_is_accepted(shared_server, members):
    assert post(shared_server, {"name": "x", **members})[0] == 200


def test_a_container_without_a_name_is_refused(shared_server):
    assert refused(post(shared_server, {})) == (400, "name", "missing_required_parameter")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"[" * 100_000, b'{"name": "x"} more', b"nul"]
)
def test_a_body_that_is_no_json_is_refused(shared_server, body):
    answer = shared_server.exchange("POST", "/v1/containers", body)
    assert refused(answer) == (400, None, None)


@pytest.mark.parametrize("body", [b"[]", b"null", b'"x"', b"5"])
def test_a_body_that_is_no_object_is_refused(shared_server, body):
    answer = shared_server.exchange("POST", "/v1/containers", body)
    assert refused(answer) == (400, "body", "invalid_type")


def test_a_file_that_was_never_registered_can_not_be_copied_in(shared_server):
    assert refused(post(shared_server, {"name": "x", "file_ids": ["file-no"]})) == (
        404,
        "file_ids",
        None,
    )
