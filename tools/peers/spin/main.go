// Command spin keeps a core busy until it is stopped, and does nothing else: whoever shares the core with it gets half. Its first line says
// that it runs.
package main

import (
	"context"
	"fmt"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	fmt.Println("spinning")
	for ctx.Err() == nil {
	}
}
