# The tests here need more than the client: a bridge, its workers, the virtual environment (`make all`), and an
# epmd of their own, so that they meet none of the nodes that may run on this machine.
#
# A VM is told the port of its epmd when it starts and cannot change it. So the tests run in a second VM, which
# is started with one; this one passes on what it says.
case :init.get_argument(:epmd_port) do
  {:ok, _port} ->
    for file <- ~w(proc program lab bridge_case seen) do
      Code.require_file("support/#{file}.exs", __DIR__)
    end

    epmd = Ringbridge.Lab.open()

    # Who waits for what must come is patient: the machine may be busy with other things.
    ExUnit.start(
      timeout: 240_000,
      assert_receive_timeout: 60_000,
      formatters: [ExUnit.CLIFormatter, Ringbridge.Seen]
    )

    ExUnit.after_suite(fn _result -> GenServer.stop(epmd) end)

  :error ->
    {:ok, socket} = :gen_tcp.listen(0, ip: {127, 0, 0, 1})
    {:ok, port} = :inet.port(socket)
    :ok = :gen_tcp.close(socket)

    {_output, status} =
      System.cmd("mix", System.argv(),
        env: [{"ERL_EPMD_PORT", "#{port}"}],
        into: IO.stream(:stdio, :line),
        stderr_to_stdout: true
      )

    System.halt(status)
end
