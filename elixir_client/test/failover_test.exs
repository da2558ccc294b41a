defmodule Ringbridge.FailoverTest do
  @moduledoc "When a job is sent again, and what its caller is told when it is not. No bridge, no clock."
  use ExUnit.Case, async: true

  alias Ringbridge.{Error, Failover, Request}

  @draining %Error{reason: :draining}
  @overloaded %Error{reason: {:overloaded, %{retry_after_ms: 1}}}
  @failed %Error{reason: {:job_failed, 1, "no"}}
  @lost %Error{reason: {:down, :noconnection}}

  setup do
    {:ok, table: :ets.new(:failover, [:public])}
  end

  defp request(table, fields \\ []) do
    instance = %Ringbridge.Instance{
      name: table,
      nodes: [:a@h, :b@h],
      mode: :dist,
      timeout: 0,
      connect_timeout: 0
    }

    request = %Request{instance: instance, verb: :submit, role: :echo, owner: self(), started: 0}
    struct!(at(request, :a@h), fields)
  end

  defp at(request, node, epoch \\ 1), do: %{request | node: node, epoch: epoch}

  test "a refusal that another bridge may not repeat goes there; no other answer does", %{
    table: table
  } do
    for error <- [
          @draining,
          @overloaded,
          %Error{reason: :no_worker},
          %Error{reason: {:down, :noproc}}
        ] do
      assert {:ok, %{tried: [:a@h]}} = Failover.retry(request(table), error)
    end

    for error <- [@failed, @lost, %Error{reason: :timeout}, %Error{reason: {:too_large, 1}}] do
      assert Failover.retry(request(table), error) == :no
    end
  end

  test "what concerns all callers is noted for all; what may be one tenant's is not", %{
    table: table
  } do
    noted? = fn -> :ets.member(table, {:shunned, :a@h, :echo}) end
    {:ok, _} = Failover.retry(request(table), @overloaded)
    refute noted?.()
    {:ok, _} = Failover.retry(request(table), @draining)
    assert noted?.()
  end

  test "a lost job that may run twice goes over another connection, and not for ever", %{
    table: table
  } do
    request = request(table, idempotent?: true)
    assert {:ok, request} = Failover.retry(request, @lost)
    assert request.tried == [{:a@h, 1}]
    assert {:ok, request} = Failover.retry(at(request, :b@h), @lost)
    assert {:ok, request} = Failover.retry(at(request, :a@h, 2), @lost)
    assert {:ok, request} = Failover.retry(at(request, :b@h, 2), @lost)
    assert Failover.retry(at(request, :a@h, 3), @lost) == :no
  end

  test "what `retry` allows is one less each time that a bridge is lost", %{table: table} do
    request = request(table, options: [retry: 2, key: "k"])
    assert {:ok, request} = Failover.retry(request, @lost)
    assert Enum.sort(request.options) == [key: "k", retry: 1]
    # A refusal has begun nothing.
    assert {:ok, request} = Failover.retry(at(request, :b@h), @overloaded)
    assert request.options[:retry] == 1
    assert {:ok, request} = Failover.retry(at(request, :a@h, 2), @lost)
    assert Failover.retry(at(request, :b@h, 2), @lost) == :no

    request = request(table, options: [retry: 0], idempotent?: true)
    assert {:ok, %{options: [retry: 0]}} = Failover.retry(request, @lost)
  end

  describe "the caller is told" do
    test "the first refusal, when all refuse", %{table: table} do
      {:ok, request} = Failover.retry(request(table), @overloaded)
      assert Failover.verdict(at(request, :b@h), @draining) == @overloaded
    end

    test "what the job came to, when one took it after another's refusal", %{table: table} do
      {:ok, request} = Failover.retry(request(table), @draining)
      assert Failover.verdict(at(request, :b@h), @failed) == @failed
      assert Failover.verdict(at(request, :b@h), @lost) == @lost
    end

    test "the loss, when others refuse after it: the job may have run", %{table: table} do
      {:ok, request} = Failover.retry(request(table, idempotent?: true), @lost)
      assert Failover.verdict(at(request, :b@h), @draining) == @lost
      {:ok, request} = Failover.retry(at(request, :b@h), @draining)
      assert request.held == @lost
    end
  end
end
