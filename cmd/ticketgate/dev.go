package main

import (
	"context"
	"crypto/rand"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"mime"
	"net"
	"os"
	"os/exec"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/valyala/fasthttp"

	"ticketgate/handshake"
	"ticketgate/handshake/auth"
	"ticketgate/internal/config"
)

func init() { commands = append(commands, devCmd) }

//go:embed demo
var demoFiles embed.FS

const devBase = 8080

func devCmd(e *env) *cobra.Command {
	var base int
	var shell bool
	c := &cobra.Command{
		Use:   "dev",
		Short: "Try it out: one process, nothing else needed, nothing kept",
		Long: `dev runs a gateway for trying things out: in-memory store, loopback only, the built-in streams echo and clock, a fresh
API key, and a demo page. Everything is gone when it ends.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if base < 1 || base > 65533 {
				return usagef("dev: --port %d: want 1 to 65533; the two ports above it are used as well", base)
			}
			d, err := newDev(e, base)
			if err != nil {
				return err
			}
			ctx := c.Context()
			if shell {
				return d.runShell(ctx)
			}
			return d.g.run(ctx, d.greet)
		},
	}
	c.Flags().IntVar(&base, "port", devBase, "handshake port; the gate and the admin address take the next two")
	c.Flags().BoolVar(&shell, "shell", false, "run $SHELL with TICKETGATE_KEY set, and end with it")
	return c
}

// dev is a gateway for trying things out.
type dev struct {
	e   *env
	g   *gateway
	key string
}

func newDev(e *env, base int) (*dev, error) {
	ring, err := keyRing("")
	if err != nil {
		return nil, err
	}
	key, record, err := auth.Generate(rand.Reader, "dev", ring)
	if err != nil {
		return nil, err
	}
	record.Client, record.Product, record.Plan, record.Scopes = "dev", "dev", "dev", []string{"delegate"}
	c := config.Dev(base, record)
	page, err := demo(key, slices.Sorted(maps.Keys(c.Streams)), c.Listen.Gate.PublicURL)
	if err != nil {
		return nil, err
	}
	log := newLog(e.stderr, config.Log{Format: "auto", Level: "warn"})
	g, err := newGateway(c, log, extras{keyRing: ring, paths: map[string]handshake.Handler{"/demo/": page}})
	if err != nil {
		return nil, portHint(err, fmt.Sprintf("dev needs ports %d to %d free, or --port BASE", base, base+2))
	}
	return &dev{e, g, key}, nil
}

// greet prints where everything is.
func (d *dev) greet() {
	d.print("in $TICKETGATE_KEY for `ticketgate dev --shell`")
}

func (d *dev) print(where string) {
	_, _ = fmt.Fprintf(d.e.stdout, `ticketgate %s dev mode: in-memory store, loopback only, data gone on exit
  handshake  http://%-21s gate  %s
  admin UI   http://%-21s demo  http://%s/demo/
  streams    echo (built-in backend)  clock (built-in feed, 1 msg/s)
  API key    %s  (also %s)
try:  %s connect echo%s --key %s
`, version, d.g.handshakeAddr, d.g.publicURL, d.g.admin.Addr(), d.g.handshakeAddr, d.key, where, self(), d.urlFlag(), d.key)
}

// runShell runs the user's shell beside the gateway and ends with it.
func (d *dev) runShell(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	serving := make(chan struct{})
	go func() { ended <- d.g.run(ctx, func() { close(serving) }) }()
	select {
	case err := <-ended:
		return err
	case <-serving:
	}
	d.print("in $TICKETGATE_KEY of this shell; leave it to end")
	name := d.e.getenv("SHELL")
	if name == "" {
		name = "/bin/sh"
	}
	shell := exec.CommandContext(ctx, name)
	shell.Env = append(d.e.environ, "TICKETGATE_KEY="+d.key, "TICKETGATE_URL=http://"+d.g.handshakeAddr.String())
	shell.Stdin, shell.Stdout, shell.Stderr = d.e.stdin, d.e.stdout, d.e.stderr
	err := shell.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = nil // how the user's last command ended is not ours
	}
	stop()
	return errors.Join(err, <-ended)
}

// self is how the user called us, for a line that can be pasted.
func self() string {
	if _, err := exec.LookPath("ticketgate"); err == nil {
		return "ticketgate"
	}
	return os.Args[0]
}

func (d *dev) urlFlag() string {
	if _, port, err := net.SplitHostPort(d.g.handshakeAddr.String()); err == nil && port != strconv.Itoa(devBase) {
		return " --url http://" + d.g.handshakeAddr.String()
	}
	return ""
}

// demo serves the demo page. Its key is in config.json, which only loopback can read and no other origin's page may.
func demo(key string, streams []string, gate string) (handshake.Handler, error) {
	settings, err := json.Marshal(map[string]any{"key": key, "streams": streams})
	if err != nil {
		return nil, err
	}
	files, err := fs.Sub(demoFiles, "demo")
	if err != nil {
		return nil, err
	}
	return func(ctx *fasthttp.RequestCtx) {
		name := strings.TrimPrefix(string(ctx.Path()), "/demo/")
		if name == "" {
			name = "index.html"
		}
		body, err := fs.ReadFile(files, name)
		if name == "config.json" {
			body, err = settings, nil
		}
		if err != nil {
			ctx.SetStatusCode(fasthttp.StatusNotFound)
			ctx.SetBodyString("no such page: try /demo/\n")
			return
		}
		ctx.SetContentType(mime.TypeByExtension(path.Ext(name)))
		ctx.Response.Header.Set("Content-Security-Policy",
			"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' "+gate+"; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
		ctx.SetBody(body)
	}, nil
}
