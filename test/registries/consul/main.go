// A real Consul 1.14 for the tests: the server's own command table, as a plain Go module.
package main

import (
	"os"

	"github.com/hashicorp/consul/command"
	ccli "github.com/hashicorp/consul/command/cli"
	"github.com/mitchellh/cli"
)

func main() {
	ui := &ccli.BasicUI{BasicUi: cli.BasicUi{Writer: os.Stdout, ErrorWriter: os.Stderr}}
	c := &cli.CLI{Args: os.Args[1:], Commands: command.RegisteredCommands(ui), Name: "consul"}
	code, err := c.Run()
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
	}
	os.Exit(code)
}
