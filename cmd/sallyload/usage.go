package main

const usage = `usage: sallyload [flags]
       sallyload [flags] TARGET
       sallyload -compare [flags] TARGET TARGET
       sallyload -suite relay [flags] TARGET TARGET TARGET

Fills an rtcd-compatible SFU with calls and says what came of it.

A TARGET is a server that runs:
  http://host:port                its API, as in -api
  'http://host:port#pid=12,13'    and the processes to measure
or a command, which is started afresh for each run and measured; blanks separate
its arguments, quotes hold them together, no shell sees it:
  'bin/sallyport serve -config load.yaml'
                                  it says where its API is in the first line it prints
                                  that has api=host:port or "api":"host:port", and with
                                  pids=12,13 that these are the processes to measure
  'http://host:port rtcd -config rtcd.toml'
                                  it answers at that URL once it is up

Flags:
`
