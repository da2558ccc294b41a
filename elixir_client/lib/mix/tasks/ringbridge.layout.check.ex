defmodule Mix.Tasks.Ringbridge.Layout.Check do
  @shortdoc "Whether this client and a bridge go by one layout"
  @moduledoc """
  Compares the layout that the client was built for with a bridge's, and refuses a mismatch: for the hook that runs before a release starts.

      mix ringbridge.layout.check --node bridge@127.0.0.1
      mix ringbridge.layout.check --digest 773a589d... --json

    * `--node` - the bridge to ask; a VM without a name becomes a hidden node for it (`Ringbridge.LocalNode`)
    * `--cookie-file` - its cookie, if not what a bridge of this user finds (`Ringbridge.Cookie`)
    * `--digest` - instead of a node: the digest that a bridge is known to have
    * `--json` - one object: `verdict` (`same`, `older`, `newer`, `mismatch`, `unsure`), `why`, `client` and `bridge`, each with
      `version` (major << 16 | minor) and `digest`

  Exit status: 0 they go together, 1 they do not or nobody could tell (`verdict` says which), 2 the arguments are wrong. In a release, where there is no mix, the same is

      bin/my_app eval 'Ringbridge.LayoutLoader.main(["--node", "bridge@127.0.0.1"])'
  """
  use Mix.Task

  @impl Mix.Task
  def run(argv) do
    Mix.Task.run("loadpaths")
    Mix.Task.run("compile")
    {status, text} = Ringbridge.LayoutLoader.run(argv)
    Mix.shell().info(text)
    # Not Mix.raise: the text is told already.
    if status != 0, do: exit({:shutdown, status})
  end
end
