package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"ticketgate/internal/config"
)

func init() { commands = append(commands, serveCmd) }

func serveCmd(e *env) *cobra.Command {
	var file string
	var newStore bool
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run a gateway",
		Long: `serve runs a gateway as its configuration says, until SIGTERM or SIGINT: then it takes nothing new, sends its sockets
away over drain.over with close code 1012, and ends. A second signal ends it at once.

A Redis that knows of no node may have lost everything while other nodes hold sockets. So for a lease and 5 s (cluster.lease) after
the first node came to it no tickets are issued, unless --new-store says that no gateway has ever used it: for the first start of a
cluster. It is no setting to keep.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := config.Load(file, e.environ, nil)
			if err != nil {
				return err
			}
			passed, err := passedSockets()
			if err != nil {
				return err
			}
			log := newLog(e.stderr, cfg.Log)
			g, err := newGateway(cfg, log, extras{sockets: passed, newStore: newStore})
			if err != nil {
				return portHint(err, "stop it, or change the address in "+file)
			}
			return g.run(c.Context(), g.logServing)
		},
	}
	c.Flags().StringVar(&file, "config", configFile, "configuration file")
	c.Flags().BoolVar(&newStore, "new-store", false, "no gateway has ever used this Redis and prefix: issue tickets at once")
	_ = c.MarkFlagFilename("config", "yaml", "yml") // fails only for a flag that is not there
	return c
}

// portHint adds what to do where a port is taken.
func portHint(err error, what string) error {
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("%w; is another gateway running? %s", err, what)
	}
	return err
}

// logServing says where the gateway listens.
func (g *gateway) logServing() {
	g.log.Info("serving", "node", g.c.Node.Name, "handshake", place(g.handshakeAddr), "gate", place(g.gateAddrs...),
		"admin", place(g.admin.Addr()), "admin_socket", g.c.Listen.Admin.Socket, "store", g.c.Store.Kind, "version", version)
	if batched, why := g.engine.Batched(); !batched && why != nil {
		g.log.Info("every read and write of a socket is a system call of its own", "io_uring", why.Error())
	}
}

// newLog returns a log of the configured format and level on w.
func newLog(w io.Writer, c config.Log) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo // config has checked it
	}
	o := &slog.HandlerOptions{Level: level}
	f, isFile := w.(*os.File)
	if c.Format == "text" || c.Format == "auto" && isFile && isTerminal(f) {
		return slog.New(slog.NewTextHandler(w, o))
	}
	return slog.New(slog.NewJSONHandler(w, o))
}
