defmodule Ringbridge.InstallTest do
  use ExUnit.Case, async: true

  alias Ringbridge.Install

  doctest Ringbridge.Install

  @wheel "ringbridge-0.1.0-cp311-cp311-linux_x86_64.whl"
  @digits String.duplicate("0", 64)

  setup do
    directory =
      Path.join(
        System.tmp_dir!(),
        "ringbridge-install-test-#{System.unique_integer([:positive])}-#{System.pid()}"
      )

    File.mkdir_p!(directory)
    on_exit(fn -> File.rm_rf!(directory) end)
    {:ok, directory: directory, venv: Path.join(directory, "venv")}
  end

  defp put(directory, name, bytes) do
    path = Path.join(directory, name)
    File.write!(path, bytes)
    path
  end

  defp sum(bytes), do: :sha256 |> :crypto.hash(bytes) |> Base.encode16(case: :lower)
  defp sums(names), do: for({name, bytes} <- names, into: "", do: "#{sum(bytes)}  #{name}\n")

  defp plan!(context, options) do
    {:ok, plan} =
      Install.plan([venv: context.venv, version: "0.1.0", python: "/no/python"] ++ options)

    plan
  end

  # What it says, and how it ends. The interpreter is none, so what gets past the checks says so.
  defp run(plan) do
    us = self()
    result = Install.run(plan, &send(us, {:said, &1}))
    refute File.exists?(plan.venv)
    result
  end

  describe "what is asked for" do
    test "without a source nothing is guessed, and nothing is fetched", context do
      assert {:error, "say from where" <> _} = Install.plan(venv: context.venv)
    end

    test "a wheel alone does not have its packages, and an index is not taken unasked", context do
      wheel = put(context.directory, @wheel, "x")
      assert {:error, why} = Install.plan(venv: context.venv, from: wheel)
      assert why =~ "--index" and why =~ "--no-deps"

      assert {:ok, %{packages: :none}} =
               Install.plan(venv: context.venv, from: wheel, deps: false)

      assert {:ok, %{packages: {:index, :pip}}} =
               Install.plan(venv: context.venv, from: wheel, index: "pip")
    end

    test "a folder has all, and what comes over the network has to be named by its sha256",
         context do
      assert {:ok, %{packages: :directory}} =
               Install.plan(venv: context.venv, from: context.directory)

      assert {:error, why} = Install.plan(venv: context.venv, index: "https://example.org/simple")
      assert why =~ "--sha256"

      assert {:error, why} =
               Install.plan(venv: context.venv, from: "https://x/y.whl", sha256: "12")

      assert why =~ "64 hexadecimal digits"
      assert {:error, why} = Install.plan(venv: context.venv, from: "/no/such/wheel")
      assert why =~ "no such file or folder"
      assert {:error, why} = Install.plan(venv: context.venv, index: "pip", sha256: @digits)
      assert why =~ "--index pip"
    end
  end

  describe "what is there is checked before any of it runs" do
    test "a wheel that is what it should be gets as far as the interpreter", context do
      wheel = put(context.directory, @wheel, "x")
      plan = plan!(context, from: wheel, deps: false, sha256: String.upcase(sum("x")))
      assert {:error, "there is no program /no/python" <> _} = run(plan)
      assert_received {:said, "ringbridge-0.1.0" <> _}
    end

    test "one that was changed does not", context do
      wheel = put(context.directory, @wheel, "y")
      assert {:error, why} = run(plan!(context, from: wheel, deps: false, sha256: sum("x")))
      assert why =~ "is not what it should be" and why =~ sum("y") and why =~ sum("x")
      refute_received {:said, _}
    end

    test "SHA256SUMS beside it is as good; without either it is refused", context do
      wheel = put(context.directory, @wheel, "x")
      plan = plan!(context, from: wheel, deps: false)
      assert {:error, why} = run(plan)
      assert why =~ "cannot be checked" and why =~ "--sha256"
      put(context.directory, "SHA256SUMS", sums([{"another.whl", "x"}]))
      assert {:error, why} = run(plan)
      assert why =~ "is not in SHA256SUMS"
      put(context.directory, "SHA256SUMS", sums([{@wheel, "x"}]))
      assert {:error, "there is no program" <> _} = run(plan)
    end

    test "of a folder each wheel is, since pip may take any of them", context do
      put(context.directory, @wheel, "x")
      put(context.directory, "trio-0.1-py3-none-any.whl", "t")
      plan = plan!(context, from: context.directory)
      put(context.directory, "SHA256SUMS", sums([{@wheel, "x"}]))
      assert {:error, "trio-0.1-py3-none-any.whl is not in SHA256SUMS" <> _} = run(plan)

      put(
        context.directory,
        "SHA256SUMS",
        sums([{@wheel, "x"}, {"trio-0.1-py3-none-any.whl", "T"}])
      )

      assert {:error, "trio-0.1-py3-none-any.whl is not what it should be" <> _} = run(plan)

      put(
        context.directory,
        "SHA256SUMS",
        sums([{@wheel, "x"}, {"trio-0.1-py3-none-any.whl", "t"}])
      )

      assert {:error, "there is no program" <> _} = run(plan)
    end

    test "another version is refused, and so is a choice of several", context do
      wheel = put(context.directory, "ringbridge-0.2.0-cp311-cp311-linux_x86_64.whl", "x")
      assert {:error, why} = run(plan!(context, from: wheel, deps: false, sha256: sum("x")))
      assert why =~ "not version 0.1.0"
      assert {:error, why} = run(plan!(context, from: context.directory))
      assert why =~ "has no wheel ringbridge-0.1.0"

      for tag <- ["cp311", "cp312"],
          do: put(context.directory, "ringbridge-0.1.0-#{tag}.whl", "x")

      assert {:error, why} = run(plan!(context, from: context.directory))
      assert why =~ "several"
    end
  end

  describe "fetched" do
    # Answers one request, as a server of files does.
    defp serve(status, body) do
      {:ok, listener} = :gen_tcp.listen(0, [:binary, ip: {127, 0, 0, 1}, active: false])
      {:ok, port} = :inet.port(listener)

      spawn_link(fn ->
        {:ok, socket} = :gen_tcp.accept(listener)
        {:ok, _request} = :gen_tcp.recv(socket, 0)

        head =
          "HTTP/1.1 #{status}\r\ncontent-length: #{byte_size(body)}\r\nconnection: close\r\n\r\n"

        :ok = :gen_tcp.send(socket, [head, body])
        :gen_tcp.close(socket)
      end)

      "http://127.0.0.1:#{port}/files/#{@wheel}"
    end

    test "it is said before it is done, and checked after", context do
      url = serve("200 OK", "x")
      plan = plan!(context, from: url, deps: false, sha256: sum("x"))
      assert {:error, "there is no program" <> _} = run(plan)
      assert_received {:said, "fetching " <> ^url}
      plan = plan!(context, from: serve("200 OK", "z"), deps: false, sha256: sum("x"))
      assert {:error, why} = run(plan)
      assert why =~ "is not what it should be"
    end

    test "what is not there, or no wheel, is told with the address", context do
      url = serve("404 Not Found", "")
      assert {:error, why} = run(plan!(context, from: url, deps: false, sha256: sum("x")))
      assert why =~ url and why =~ "404"

      assert {:error, why} =
               run(plan!(context, from: "http://127.0.0.1:1/", deps: false, sha256: sum("x")))

      assert why =~ "no address of a wheel"
      gone = "http://127.0.0.1:1/#{@wheel}"
      assert {:error, why} = run(plan!(context, from: gone, deps: false, sha256: sum("x")))
      assert why =~ gone
    end
  end

  describe "beside others" do
    # A program in the interpreter's place, which writes down how it was called, and may not find a module.
    defp interpreter(path, log, lacks \\ "none") do
      File.mkdir_p!(Path.dirname(path))

      File.write!(path, """
      #!/bin/sh
      echo "$PIP_CONFIG_FILE $*" >> #{log}
      for word; do [ ! -d "$word" ] || echo "mode $(stat -c %a "$word")" >> #{log}; done
      [ "$*" = "-m pip --version" ] && [ ! -e #{lacks} ]
      """)

      File.chmod!(path, 0o755)
      path
    end

    test "no two install into one environment: the second would take away what the first has made",
         context do
      wheel = put(context.directory, @wheel, "x")
      plan = plan!(context, from: wheel, deps: false, sha256: sum("x"))
      us = self()

      say = fn text ->
        send(us, {:second, Install.run(plan, fn _text -> :ok end)})
        send(us, {:said, text})
      end

      assert {:error, "there is no program" <> _} = Install.run(plan, say)
      assert_received {:second, {:error, why}}
      assert why =~ "another installation into #{context.venv} is under way"
      # It is over, and the next one may.
      assert {:error, "there is no program" <> _} = run(plan)
    end

    test "what was fetched lies where nobody else can put another file", context do
      log = Path.join(context.directory, "log")
      python = interpreter(Path.join(context.directory, "python"), log)
      url = "https://reader:s3cret@127.0.0.1:1/simple"
      plan = %{plan!(context, index: url, sha256: sum("x")) | python: python}
      assert {:error, why} = run(plan)
      assert File.read!(log) =~ "mode 700"
      # And who reads the log of a build learns no password.
      assert_received {:said, said}
      assert said =~ "https://***@127.0.0.1:1/simple"
      assert why =~ "***@127.0.0.1" and not (why <> said =~ "s3cret")
    end

    test "pip has no file of settings, which may name other indexes, unless it was asked for",
         context do
      log = Path.join(context.directory, "log")
      wheel = put(context.directory, @wheel, "x")
      interpreter(Path.join(context.venv, "bin/python"), log)

      for {more, file} <- [
            {[deps: false], "/dev/null "},
            {[index: "https://127.0.0.1:1"], "/dev/null "},
            {[index: "pip"], "#{System.get_env("PIP_CONFIG_FILE")} "}
          ] do
        File.rm(log)
        plan = plan!(context, [from: wheel, sha256: sum("x")] ++ more)
        assert {:error, why} = Install.run(plan, fn _text -> :ok end)
        assert why =~ "ends with status 1"
        assert [_asked, install] = log |> File.read!() |> String.split("\n", trim: true)
        assert install =~ " install " and String.starts_with?(install, file)
      end
    end

    test "an environment that was left half made is completed", context do
      log = Path.join(context.directory, "log")
      wheel = put(context.directory, @wheel, "x")
      lacks = put(context.directory, "no-pip", "")
      interpreter(Path.join(context.venv, "bin/python"), log, lacks)
      whole = interpreter(Path.join(context.directory, "python"), log)
      plan = %{plan!(context, from: wheel, sha256: sum("x"), deps: false) | python: whole}
      assert {:error, why} = Install.run(plan, fn _text -> :ok end)
      # Only a real interpreter would have come further.
      assert why =~ "-m venv #{context.venv}"
      assert File.read!(log) =~ "-m venv #{context.venv}"
    end
  end

  test "a release without an installed bridge says what to do first", context do
    assert_raise Mix.Error, ~r/no bridge is installed in .*mix ringbridge.install/, fn ->
      Ringbridge.Release.add_bridge(%{path: context.directory}, context.venv)
    end
  end
end
