// Command ticketgate is the gateway and all that goes with it. Each verb group is a file of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"ticketgate/internal/config"
)

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitConfig      = 3 // the configuration is invalid
	exitUnreachable = 4 // the server cannot be reached
	exitInterrupted = 130
)

// The first SIGINT or SIGTERM ends the context of the command; the second has its usual effect.
func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, &env{
		args: os.Args[1:], environ: os.Environ(), stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		interactive: isTerminal(os.Stdin) && isTerminal(os.Stdout),
	}))
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// env is what a command sees of the world around it. Data goes to stdout, talk to stderr.
type env struct {
	args        []string // without the program's name
	environ     []string // NAME=value
	stdin       io.Reader
	stdout      io.Writer
	stderr      io.Writer
	interactive bool // a person sits at stdin and stdout
}

// getenv is the value of a variable, "" if there is none. Of several the last counts, as in a shell.
func (e *env) getenv(name string) string {
	for i := len(e.environ) - 1; i >= 0; i-- {
		if value, ok := strings.CutPrefix(e.environ[i], name+"="); ok {
			return value
		}
	}
	return ""
}

// commands are the verbs; each file adds its own. The help sorts them.
var commands []func(*env) *cobra.Command

// exitError is an error that stands for an exit code of its own.
type exitError struct {
	code int
	msg  string
}

func (e *exitError) Error() string { return e.msg }

// errInterrupted ends a command that the user ended. Nothing is printed about it.
var errInterrupted = &exitError{exitInterrupted, "interrupted"}

// usagef is the error of a command line that makes no sense.
func usagef(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Sprintf(format, args...)}
}

// unreachablef is the error of a server that does not answer.
func unreachablef(format string, args ...any) error {
	return &exitError{exitUnreachable, fmt.Sprintf(format, args...)}
}

// run does what e.args say and returns the exit code. It has printed what went wrong.
func run(ctx context.Context, e *env) int {
	root := &cobra.Command{
		Use:           "ticketgate",
		Short:         "A gateway for protected WebSockets",
		Long:          "ticketgate hands out one-time tickets for WebSockets and keeps the sockets within limits.",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetArgs(e.args)
	root.SetIn(e.stdin)
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	for _, command := range commands {
		root.AddCommand(command(e))
	}
	started := false
	prepare(root, &started)
	at, err := root.ExecuteContextC(ctx)
	if err != nil && !started { // cobra complains about flags and arguments
		err = usagef("%v\nsee: %s --help", err, at.CommandPath())
	}
	return report(e.stderr, err)
}

// prepare makes each command tell that it was reached, and each group complain about a verb that it does not have: cobra
// would show its help and call that success.
func prepare(c *cobra.Command, started *bool) {
	for _, sub := range c.Commands() {
		prepare(sub, started)
	}
	inner := c.RunE
	if inner == nil {
		c.DisableFlagsInUseLine = true
		inner = func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q for %q\nsee: %s --help", args[0], c.CommandPath(), c.CommandPath())
			}
			return c.Help()
		}
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		*started = true
		return inner(c, args)
	}
}

// report prints err and returns the exit code that it stands for.
func report(w io.Writer, err error) int {
	var problems *config.Problems
	var coded *exitError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errInterrupted):
		return exitInterrupted
	case errors.As(err, &problems):
		_, _ = fmt.Fprintln(w, problems)
		return exitConfig
	}
	_, _ = fmt.Fprintf(w, "ticketgate: %v\n", err)
	if errors.As(err, &coded) {
		return coded.code
	}
	return exitFailed
}
