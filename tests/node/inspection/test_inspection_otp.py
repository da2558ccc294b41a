"""OTP's own modules: applications, supervisors, `sys`, `proc_lib`, `code`."""

from __future__ import annotations

import pytest
from inspect_support import atom, inspected_node, keyword
from services import Counter

from bridge.node.exports import Raise


async def test_the_application_and_its_supervisor() -> None:
    async with inspected_node() as rpc:
        counter = await rpc.node.start(Counter(), name="counter")
        [(name, description, version)] = await rpc("application", "which_applications")
        assert (name, bytes(version)) == (atom("ringbridge"), b"0.1.0")
        assert bytes(description)
        root = await rpc("application_controller", "get_master", name)
        children = await rpc("supervisor", "which_children", root)
        assert (atom("counter"), counter, atom("worker"), [atom("Elixir.Counter")]) in children
        # As any caller in the cluster may ask it.
        assert await rpc.node.call(root, atom("which_children")) == children
        counts = keyword(await rpc("supervisor", "count_children", root))
        assert counts["active"] == counts["workers"] == len(children)
        refused = await rpc.node.call(root, (atom("terminate_child"), atom("counter")))
        assert refused[1][0] == atom("unauthorized")
        assert await rpc("application_controller", "get_master", atom("other")) == atom("undefined")


async def test_an_ended_supervisor_is_there_again() -> None:
    async with inspected_node() as rpc:
        root = await rpc("application_controller", "get_master", atom("ringbridge"))
        rpc.node.exit(root, atom("kill"))
        again = await rpc("application_controller", "get_master", atom("ringbridge"))
        assert again != root
        assert await rpc("erlang", "whereis", atom("ringbridge_sup")) == again


async def test_sys_asks_the_process_itself() -> None:
    async with inspected_node() as rpc:
        server = Counter()
        pid = await rpc.node.start(server, name="counter")
        server.state = 7
        assert await rpc("sys", "get_state", pid) == 7
        status = await rpc("sys", "get_status", pid, 200)
        assert status[:2] == (atom("status"), pid)
        with pytest.raises(Raise) as raised:
            await rpc("sys", "get_state", atom("nobody"))
        assert (raised.value.kind, raised.value.reason) == ("exit", atom("noproc"))


async def test_sys_gives_up_on_a_process_that_is_busy() -> None:
    async with inspected_node() as rpc:
        server = Counter()
        pid = await rpc.node.start(server, name="counter")
        await rpc.node.send(pid, (atom("$gen_call"), (rpc.node.caller().pid, 1), atom("block")))
        await server.entered.wait()
        with pytest.raises(Raise) as raised:
            await rpc("sys", "get_status", pid, 20)
        assert raised.value.reason[0] == atom("timeout")
        server.release.set()


async def test_the_module_of_a_process_can_be_asked_about() -> None:
    async with inspected_node() as rpc:
        pid = await rpc.node.start(Counter(), name="counter")
        call = await rpc("proc_lib", "translate_initial_call", pid)
        assert call == (atom("Elixir.Counter"), atom("init"), 1)
        attributes = keyword(await rpc("Counter", "module_info", atom("attributes")))
        assert attributes == {"behaviour": [atom("gen_server")]}
        assert await rpc("code", "is_loaded", atom("Elixir.Counter")) == (
            atom("file"),
            atom("preloaded"),
        )
        assert await rpc("proc_lib", "get_label", pid) == atom("undefined")


async def test_code_is_never_loaded() -> None:
    async with inspected_node() as rpc:
        dashboard = atom("Elixir.Phoenix.LiveDashboard.SystemInfo")
        assert await rpc("code", "is_loaded", dashboard) is False
        assert await rpc("code", "load_binary", dashboard, [97], b"FOR1") == (
            atom("module"),
            dashboard,
        )
        assert await rpc("code", "is_loaded", dashboard) is False
        assert await rpc("code", "load_binary", atom("mine"), [97], b"FOR1") == (
            atom("error"),
            atom("badfile"),
        )
        assert await rpc("code", "ensure_loaded", atom("observer_backend")) == (
            atom("module"),
            atom("observer_backend"),
        )
        assert await rpc("code", "ensure_loaded", atom("rb")) == (atom("error"), atom("nofile"))
        exported = "erlang", "function_exported"
        backend = atom("observer_backend")
        assert await rpc(*exported, backend, atom("procs_info"), 1) is True
        assert await rpc(*exported, backend, atom("procs_info"), 2) is False
