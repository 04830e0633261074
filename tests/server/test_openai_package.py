"""The official package works unchanged, synchronously and asynchronously, over TCP."""

import asyncio

import openai
import pytest


@pytest.fixture
def tcp_server(server_factory):
    return server_factory(tcp=True, api_key="sk-test")


def test_the_package_carries_out_all_nine_operations(tcp_server):
    with openai.OpenAI(base_url=tcp_server.base_url, api_key="sk-test") as client:
        made = client.containers.create(
            name="box",
            memory_limit="4g",
            expires_after={"anchor": "last_active_at", "minutes": 10},
            network_policy={"type": "allowlist", "allowed_domains": ["a.com"]},
            skills=[{"type": "skill_reference", "skill_id": "s"}],
        )
        assert made.status == "running"
        found = client.containers.retrieve(made.id)
        assert (found.name, found.memory_limit) == ("box", "4g")
        assert found.network_policy.allowed_domains == ["a.com"]

        data = bytes(range(256)) * 1000
        file = client.containers.files.create(made.id, file=("dir/a.bin", data))
        assert file.bytes == len(data)
        assert client.containers.files.retrieve(file.id, container_id=made.id).id == file.id
        content = client.containers.files.content.retrieve(file.id, container_id=made.id)
        assert content.read() == data
        attached = client.containers.files.create(
            made.id, file_id=tcp_server.register("r.txt", b"registered")
        )
        assert attached.path.endswith("-r.txt")
        assert [item.id for item in client.containers.files.list(made.id)] == [attached.id, file.id]
        client.containers.files.delete(file.id, container_id=made.id)
        assert [item.id for item in client.containers.files.list(made.id)] == [attached.id]

        client.containers.delete(made.id)
        assert list(client.containers.list()) == []
        with pytest.raises(openai.NotFoundError, match="not found"):
            client.containers.retrieve(made.id)


def test_the_package_pages_through_lists_by_itself(tcp_server):
    with openai.OpenAI(base_url=tcp_server.base_url, api_key="sk-test") as client:
        made = [client.containers.create(name=f"c{n}").id for n in range(7)]
        assert [item.id for item in client.containers.list(limit=2, order="asc")] == made
        assert [item.id for item in client.containers.list(name="c3")] == [made[3]]
        files = [client.containers.files.create(made[0], file=(f"{n}", b"x")).id for n in range(5)]
        assert [item.id for item in client.containers.files.list(made[0], limit=3)] == files[::-1]


def test_the_package_understands_refusals(tcp_server):
    with openai.OpenAI(base_url=tcp_server.base_url, api_key="wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            client.containers.list()
        with pytest.raises(openai.BadRequestError) as caught:
            client.with_options(api_key="sk-test").containers.list(limit=500)
    assert (caught.value.param, caught.value.code) == ("limit", "integer_above_max_value")
    assert caught.value.request_id.startswith("req_")


def test_the_package_retries_when_told_to(tcp_server):
    tcp_server.set_faults(
        {"kind": "status", "status": 429, "header": "retry-after-ms", "value": "1", "count": 1}
    )
    with openai.OpenAI(base_url=tcp_server.base_url, api_key="sk-test") as client:
        assert list(client.containers.list()) == []
    assert [entry["status"] for entry in tcp_server.requests()] == [429, 200]


def test_the_asynchronous_package_carries_out_all_nine_operations(tcp_server):
    async def use() -> None:
        async with openai.AsyncOpenAI(base_url=tcp_server.base_url, api_key="sk-test") as client:
            containers, files = client.containers, client.containers.files
            made = [(await containers.create(name=f"c{n}")).id for n in range(5)]
            assert [item.id async for item in containers.list(limit=2, order="asc")] == made
            assert (await containers.retrieve(made[0])).name == "c0"
            uploads = [files.create(made[0], file=(f"{n}.txt", b"%d" % n)) for n in range(8)]
            sent = await asyncio.gather(*uploads)
            found = [item.id async for item in files.list(made[0], limit=3)]
            assert sorted(found) == sorted(item.id for item in sent)
            retrieved = await files.retrieve(sent[3].id, container_id=made[0])
            assert retrieved.path == sent[3].path
            content = await files.content.retrieve(sent[3].id, container_id=made[0])
            assert content.content == b"3"
            await files.delete(sent[3].id, container_id=made[0])
            assert len([item async for item in files.list(made[0])]) == 7
            await containers.delete(made[0])
            assert len([item async for item in containers.list()]) == 4

    asyncio.run(use())
