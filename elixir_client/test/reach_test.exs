defmodule Ringbridge.ReachTest do
  @moduledoc "Why a node cannot be reached, and its handshake, with a scripted peer."
  use ExUnit.Case, async: true

  alias Ringbridge.Reach
  alias Ringbridge.Reach.{Handshake, Probe}

  doctest Ringbridge.Reach

  # A peer that goes through the script of a handshake: what it says after each message of ours.
  defp peer(script) do
    {:ok, listener} = :gen_tcp.listen(0, [:binary, active: false, packet: 2, ip: {127, 0, 0, 1}])
    {:ok, port} = :inet.port(listener)

    task =
      Task.async(fn ->
        {:ok, socket} = :gen_tcp.accept(listener)

        Enum.reduce_while(script, :ok, fn say, _ ->
          {:ok, heard} = :gen_tcp.recv(socket, 0, 60_000)

          case say.(heard) do
            :close -> {:halt, :gen_tcp.close(socket)}
            answers -> {:cont, Enum.each(answers, &(:ok = :gen_tcp.send(socket, &1)))}
          end
        end)

        # Until the other side has gone.
        :gen_tcp.recv(socket, 0, 60_000)
      end)

    {:ok, socket} = :gen_tcp.connect({127, 0, 0, 1}, port, [:binary, active: false, packet: 2])
    outcome = Handshake.shake(socket, :"us@127.0.0.1", :COOKIE, 60_000)
    :gen_tcp.close(socket)
    Task.await(task, 60_000)
    :gen_tcp.close(listener)
    outcome
  end

  defp challenge(flags), do: <<"N", flags::64, 77::32, 5::32, 4::16, "b@h1">>
  defp knows(cookie, <<"r", mine::32, _::binary>>), do: ["a" <> Handshake.digest(cookie, mine)]

  test "a peer with our cookie is let through, with what it says of itself" do
    script = [
      fn <<"N", _flags::64, creation::32, 12::16, "us@127.0.0.1">> when creation > 0 ->
        ["sok", challenge(0x4)]
      end,
      fn <<"r", _::32, digest::binary>> = reply ->
        assert digest == Handshake.digest("COOKIE", 77)
        knows("COOKIE", reply)
      end
    ]

    assert peer(script) == {:ok, 0x4}
    refute Handshake.published?(0x4)
    assert Handshake.published?(0x5)
  end

  test "a wrong cookie is told from a refusal, and from a peer that closes" do
    ok = fn _name -> ["sok", challenge(0x4)] end
    assert peer([ok, fn _reply -> :close end]) == :cookie
    assert peer([ok, &knows("ANOTHER", &1)]) == :cookie
    assert peer([fn _name -> ["snot_allowed"] end]) == {:status, "not_allowed"}
    assert {:closed, _} = peer([fn _name -> :close end])
    assert {:closed, _} = peer([fn _name -> ["sok", "N cut short"] end])
  end

  test "each way to fail is a sentence with a way out" do
    node = :bridge@db

    for {found, word} <- [
          {{:host, :nxdomain}, "Is the name right"},
          {{:epmd, :address}, "ringbridge serve"},
          {{:name, []}, "ringbridge serve"},
          {{:name, ["other", "a"]}, "it knows a, other"},
          {{:port, 4_000, :econnrefused}, "4000"},
          {{:handshake, {:status, "not_allowed"}}, "[node] allow"},
          {{:handshake, {:status, "alive"}}, "again in a moment"},
          {{:handshake, {:status, "nok"}}, "nok"},
          {{:handshake, :cookie}, "--cookie-file"},
          {{:handshake, {:closed, "here"}}, "log"},
          {:tls, "TLS"},
          {:open, "again"}
        ] do
      assert Probe.words(found, node) =~ word
    end
  end

  test "a question to nobody is an error, and no exit" do
    assert {:error, error} = Reach.ask(node(), Ringbridge.NobodyHere, :status)
    assert error.reason == {:down, :noproc}
    assert Reach.words(error) =~ "is no bridge"
  end
end
