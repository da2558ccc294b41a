Code.require_file("support/looks.exs", __DIR__)

defmodule Ringbridge.DoctorTest do
  @moduledoc "What the doctor makes of what it finds: each way in which something may be wrong, with what it means and a way out."
  use ExUnit.Case, async: true

  alias Ringbridge.Doctor.Judge
  alias Ringbridge.{Error, Looks}

  @node :"bridge@127.0.0.1"

  defp whole!(finding) do
    assert finding.means != "" and finding.mend != "", inspect(finding)
    finding
  end

  test "each thing that is well is one line" do
    fine = [
      Judge.versions("1.14.0", "25"),
      Judge.versions("1.20.4-rc.1", "29"),
      Judge.own_name(:"ringbridge-1-ab@127.0.0.1"),
      Judge.cookie("of ~/.erlang.cookie"),
      Judge.carrier(:error),
      Judge.carrier({:ok, [[~c"inet_tls"]]}),
      Judge.connected(@node, true),
      Judge.host(@node, true),
      Judge.host(@node, false),
      Judge.answers(51),
      Judge.version("0.1.0", "0.1.0"),
      Judge.layout(%{version: "3.1", digest: "abc"}, "abc"),
      Judge.clock({:ok, -3, 1}),
      Judge.admin({:ok, []}),
      Judge.echo({:ok, %{job: 1, worker: 2, queue_us: 0, run_us: 40}})
    ]

    for finding <- fine, do: assert(%{verdict: :ok, means: "", mend: ""} = finding)
  end

  test "what calls can do without is not bad" do
    unauthorized = %Error{reason: {:unauthorized, "for admin nodes"}, node: @node}
    unknown = %Error{reason: {:bad_request, "unknown role echo"}, role: :echo, node: @node}

    for finding <- [
          Judge.connected(@node, false),
          Judge.version("0.2.0", "0.1.0"),
          Judge.layout(nil, "abc"),
          Judge.layout(%{version: "3.2", digest: "abd"}, "abc"),
          Judge.clock(:unknown),
          Judge.clock({:ok, 61_000, 2}),
          Judge.admin({:error, unauthorized}),
          Judge.echo({:error, unknown})
        ] do
      assert whole!(finding).verdict == :hm
    end
  end

  test "what calls cannot do without is bad" do
    timeout = %Error{reason: :timeout, node: @node}

    for finding <- [
          Judge.versions("1.13.4", "25"),
          Judge.versions("1.14.0", "24"),
          Judge.name_or_cookie("there is no cookie"),
          Judge.silent(timeout),
          Judge.admin({:error, timeout}),
          Judge.echo(:wrong),
          Judge.echo({:error, %Error{reason: :no_worker, role: :echo, node: @node}})
        ] do
      assert whole!(finding).verdict == :bad
    end
  end

  test "of a way that is cut the steps before are well, and none after is told" do
    names = fn found -> Enum.map(Judge.unreachable(found, @node), &{&1.name, &1.verdict}) end

    assert names.({:host, :nxdomain}) == [{"host", :bad}]
    assert names.({:epmd, :address}) == [{"host", :ok}, {"epmd", :bad}]
    assert names.({:name, []}) == [{"host", :ok}, {"epmd", :ok}, {"name", :bad}]

    assert names.({:handshake, :cookie}) == [
             {"host", :ok},
             {"epmd", :ok},
             {"name", :ok},
             {"port", :ok},
             {"handshake", :bad}
           ]

    assert names.(:tls) == [{"tls", :bad}]

    for finding <- Judge.unreachable({:handshake, :cookie}, @node),
        finding.verdict == :bad,
        do: whole!(finding)
  end

  test "a role that refuses, or has nobody, says so" do
    roles = [
      Looks.role("echo"),
      Looks.role("sleep", %{breaker: :open}),
      Looks.role("idle", %{workers_ready: 0})
    ]

    [echo, sleep, idle] = Judge.roles(Looks.look(status: Looks.status(%{roles: roles})))
    assert echo.verdict == :ok and echo.found =~ "1 of 1 workers ready"
    assert whole!(sleep).verdict == :hm and sleep.mend =~ "circuit breaker is open"
    assert whole!(idle).verdict == :hm and idle.mend =~ "--role idle"
  end
end
