// A real etcd 3.6 for the tests: the server's own entry point, as a plain Go module.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
