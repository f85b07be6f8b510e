package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"ticketgate/bench/load"
	"ticketgate/internal/unit"
)

func init() { commands = append(commands, benchCmd) }

const exitMissed = 5 // a requirement was missed

// plainEvery is how often a run says where it is when nobody sits at a terminal.
const plainEvery = 5 * time.Second

// benchVerbs are the verbs that make load, each with what it does.
var benchVerbs = []struct {
	name, short, long string
}{
	{load.Tickets, "Ask for tickets", "Each operation is one POST /v1/tickets. The tickets are not used."},
	{load.Connect, "Open sockets and hold them", "Opens -c sockets (--ramp a second, or as fast as they come), holds them for --duration and answers their pings."},
	{load.Echo, "Send messages to a stream that echoes", "Each operation is one message and its answer, which is compared with it."},
	{load.Relay, "Send messages through a relay to a backend that bench plays itself", `Each operation is one message to the backend and its answer. bench listens on --backend, to which the stream's
backend must point, and so measures both ways apart.`},
	{load.Feed, "Listen to a feed", `Each operation is a message that a socket hears. Where messages begin with {"time":"..."}, as the built-in clock's do, their
delay is measured; the clocks of server and client must agree.`},
	{load.Churn, "Open and end sockets over and over", `Each operation is a socket that is opened and ended: politely, by FIN, by RST, in the middle of a message, or before the 101.`},
	{load.Soak, "Echo for hours, and watch the server's memory", "Echo, for an hour by default: require 'server-growth<5%'."},
	{load.Hostile, "Echo beside hostile peers", `Honest sockets echo for --duration; in its second half --hostile bad peers of each --attack join. What counts is how much slower
the honest ones become: require 'slowdown<2'.`},
}

// benchOptions are the flags of the verbs.
type benchOptions struct {
	load.Settings
	sources   string
	closed    bool
	require   string
	json      string
	html      string
	serverPID []int
}

func benchCmd(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure a gateway, or any WebSocket server",
		Long: `bench makes load and measures what comes of it: from several processes with one epoll each, through real tickets or
against any plain WebSocket server, with latencies that count from when a message was due. A run in which the client fell
behind is INVALID.`,
	}
	for _, v := range benchVerbs {
		c.AddCommand(benchVerb(e, v.name, v.short, v.long))
	}
	c.AddCommand(benchCompareCmd(e), benchReportCmd(e), benchWorkerCmd(e))
	return c
}

func benchVerb(e *env, verb, short, long string) *cobra.Command {
	o := benchOptions{Settings: load.Settings{Verb: verb, InFlight: 1}}
	c := &cobra.Command{
		Use: verb, Short: short, Long: long, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if o.Key == "" {
				o.Key = e.getenv("TICKETGATE_KEY")
			}
			command := commandOf(e.args)
			if v := e.getenv("TICKETGATE_URL"); v != "" && o.Target == "" && o.Plain == "" {
				o.Target = v
				command = append(command, "--target", v)
			}
			return o.run(c.Context(), e, verb, command)
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&o.Target, "target", "", "handshake address of the gateway, such as http://127.0.0.1:8080; also TICKETGATE_URL")
	f.StringVar(&o.Key, "key", "", "API key; also TICKETGATE_KEY")
	f.StringVar(&o.Stream, "stream", map[string]string{load.Feed: "clock"}[verb], map[string]string{
		load.Feed: "stream to ask tickets for", load.Relay: "stream to ask tickets for, which relays to --backend",
	}[verb])
	if usage := f.Lookup("stream"); usage.Usage == "" {
		usage.Usage = "stream to ask tickets for (default: echo)"
	}
	f.IntVar(&o.Clients, "clients", 0, "spread the tickets over so many clients (the key needs the delegate scope); 0: the key's own client")
	if verb != load.Tickets {
		f.StringVar(&o.Plain, "plain", "", "instead of a gateway: a WebSocket server without tickets, such as ws://127.0.0.1:9000/")
	}
	if verb != load.Tickets && verb != load.Churn {
		f.IntVarP(&o.Sockets, "connections", "c", 100, "sockets")
		f.Float64Var(&o.Ramp, "ramp", 0, "sockets to open a second; 0: as fast as they come")
		f.BoolVar(&o.Insist, "insist", false, "try again for each socket that could not be opened, until all are")
	}
	duration := 10 * time.Second
	if verb == load.Soak {
		duration = time.Hour
	}
	if verb != load.Connect && verb != load.Feed {
		f.StringVar(&o.Rate, "rate", "", "operations a second: 20000, 1000..20000, or steps 1000:10s,5000:10s; latency counts from when each is due")
		f.BoolVar(&o.Poisson, "poisson", false, "operations arrive independently of each other, not evenly")
		f.BoolVar(&o.closed, "closed", false, "instead of --rate: the next operation begins when the last one ends")
	}
	switch verb {
	case load.Echo, load.Relay, load.Soak, load.Hostile:
		f.IntVar(&o.InFlight, "in-flight", 1, "with --closed: messages under way on each socket")
		o.Size = 128
		f.Var((*sizeFlag)(&o.Size), "size", "of a message, such as 500 or 16KiB")
	}
	f.DurationVarP(&o.Duration, "duration", "d", duration, "of the run, after the sockets are open")
	f.DurationVar(&o.Settle, "settle", 5*time.Second, "how long answers are awaited at the end")
	f.DurationVar(&o.Timeout, "timeout", 10*time.Second, "how long a ticket, connecting and upgrading, or the answer to a close frame may take; 0: for ever, but a run ends when no socket more is open for 5 min")
	f.IntVar(&o.Procs, "procs", 0, "client processes; 0: as many as the limit of descriptors makes necessary")
	f.IntVar(&o.Lanes, "lanes", 64, "sockets or tickets under way at once, of each process")
	f.StringVar(&o.sources, "source", "", "addresses to connect from, such as 127.0.0.2-127.0.0.9")
	f.Uint64Var(&o.Seed, "seed", 1, "of all chance")
	f.BoolVar(&o.Pin, "pin", false, "each process stays on one core")
	f.IntSliceVar(&o.serverPID, "server-pid", nil, "process of the server to watch (default: who listens on the target's address and port, and on those of the gates that tickets name, if they are on this machine)")
	if verb == load.Relay {
		f.StringVar(&o.Backend, "backend", "", "address on which bench listens as the stream's backend, such as 127.0.0.1:9000")
	}
	if verb == load.Hostile {
		f.StringSliceVar(&o.Attacks, "attack", load.Attacks, "what the bad peers do")
		f.IntVar(&o.Hostile, "hostile", 20, "bad peers of each attack")
	}
	f.StringVar(&o.require, "require", "", "what the run has to reach, such as 'p99<20ms,errors<0.1%' (exit 5 if it does not)")
	f.StringVar(&o.json, "json", "", "write the result to this file, - for standard output")
	f.StringVar(&o.html, "html", "", "write a report that a browser opens to this file")
	return c
}

// sizeFlag is a number of bytes that reads as those of the configuration do.
type sizeFlag int

// String implements pflag.Value.
func (s *sizeFlag) String() string { return unit.Size(*s).String() }

// Set implements pflag.Value.
func (s *sizeFlag) Set(text string) error {
	var n unit.Size
	err := n.UnmarshalText([]byte(text))
	*s = sizeFlag(n)
	return err
}

// Type implements pflag.Value.
func (s *sizeFlag) Type() string { return "size" }

// complete fills in what follows from other flags, and checks what only this command knows of.
func (o *benchOptions) complete(verb string) ([]load.Requirement, error) {
	if o.Stream == "" && o.Plain == "" && verb != load.Relay { // echo answers without bench's backend
		o.Stream = "echo"
	}
	rated := verb != load.Connect && verb != load.Feed
	switch {
	case rated && o.Rate == "" && !o.closed:
		return nil, fmt.Errorf("want --rate N, operations a second that are due whatever the server does, or --closed, as fast as it answers")
	case o.Rate != "" && o.closed:
		return nil, errors.New("--rate and --closed exclude each other")
	case o.Poisson && o.Rate == "":
		return nil, errors.New("--poisson: want a --rate")
	case o.json != "" && o.json == o.html:
		return nil, fmt.Errorf("--json %s and --html %s: want two places for two results", o.json, o.html)
	}
	o.PIDs = o.serverPID
	var err error
	if o.sources != "" {
		if o.Sources, err = load.ParseSources(o.sources); err != nil {
			return nil, err
		}
	}
	if verb == load.Tickets || verb == load.Churn {
		o.Sockets = 0
	}
	if o.require == "" {
		return nil, nil
	}
	return load.ParseRequirements(o.require)
}

func (o *benchOptions) run(ctx context.Context, e *env, verb string, command []string) (err error) {
	requirements, err := o.complete(verb)
	if err == nil {
		err = o.Check()
	}
	if err == nil {
		err = o.Has(requirements)
	}
	if err != nil {
		return usagef("bench %s: %v", verb, err)
	}
	line, missing, err := o.Preflight()
	if err != nil {
		return err
	}
	fmt.Fprintln(e.stderr, "preflight  "+line)
	if len(missing) > 0 {
		return fmt.Errorf("bench %s: this machine is not ready:\n  %s", verb, strings.Join(missing, "\n  "))
	}
	files, err := openOutputs(e.stdout, o.json, o.html) // before the run: it may be an hour
	if err != nil {
		return fmt.Errorf("bench %s: %w", verb, err)
	}
	defer func() { err = errors.Join(err, files.drop()) }()
	say := newTeller(e)
	r, err := load.Run(ctx, o.Settings, load.Env{Tool: "ticketgate " + version, Command: command, Worker: benchWorker, Say: say.progress})
	say.end()
	switch {
	case errors.Is(err, load.ErrUnreachable):
		return unreachablef("bench %s: %v", verb, err)
	case err != nil:
		return interrupted(ctx, fmt.Errorf("bench %s: %w", verb, err))
	}
	missed := r.Judge(requirements)
	out := e.stdout
	if o.json == "-" || o.html == "-" {
		out = e.stderr
	}
	for _, line := range r.Lines() {
		fmt.Fprintln(out, line)
	}
	if err := files.write(r.WriteTo, r.WriteHTML); err != nil {
		return err
	}
	return verdictError(r, missed)
}

// verdictError is the exit code of a run.
func verdictError(r *load.Result, missed bool) error {
	switch {
	case r.Verdict == load.Interrupted:
		return errInterrupted
	case r.Unreachable():
		return unreachablef("bench: nobody answered: %s", strings.Join(r.Why, "; "))
	case missed:
		return &exitError{exitMissed, "bench: a requirement was missed"}
	case r.Verdict == load.Fail:
		return &exitError{exitFailed, "bench: the run has failed: " + strings.Join(r.Why, "; ")}
	case r.Verdict == load.Invalid:
		return &exitError{exitFailed, "bench: the run is INVALID: its figures are not the server's"}
	default:
		return nil
	}
}

// commandOf is what was typed, without the value of --key and what may be secret of an address.
func commandOf(args []string) []string {
	all := []string{"ticketgate"}
	flag := "" // whose value comes next
	for _, a := range args {
		name, value, joined := strings.Cut(a, "=")
		switch {
		case flag != "":
			a = withoutSecrets(flag, a)
		case joined:
			a = name + "=" + withoutSecrets(name, value)
		}
		if flag == "" && !joined && (a == "--key" || a == "--plain") {
			flag = a
		} else {
			flag = ""
		}
		all = append(all, a)
	}
	return all
}

// withoutSecrets is the value of a flag as it may be shown.
func withoutSecrets(flag, value string) string {
	switch flag {
	case "--key":
		return "***"
	case "--plain":
		return load.HideSecrets(value)
	default:
		return value
	}
}

func benchWorker() *exec.Cmd { return exec.Command("/proc/self/exe", "bench", "worker") }

// benchWorkerCmd is one of a run's processes.
func benchWorkerCmd(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "worker", Short: "Work for another bench command", Hidden: true, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			runtime.LockOSThread() // its own waiting for its core is that of a thread
			defer runtime.UnlockOSThread()
			return load.Work(c.Context(), e.stdin, e.stdout)
		},
	}
}

// A teller shows the progress of a run on stderr: a line that is drawn over and over on a terminal, else one every 5 s.
type teller struct {
	w       io.Writer
	width   func() int // columns of the terminal; nil: there is none
	phase   string
	last    time.Time
	drawn   bool
	pending string
}

func newTeller(e *env) *teller {
	t := &teller{w: e.stderr}
	if f, ok := e.stderr.(*os.File); ok && isTerminal(f) {
		t.width = func() int { return columns(f) }
	}
	return t
}

// columns is how wide the terminal f is now; one that does not say has as many as any.
func columns(f *os.File) int {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Col == 0 {
		return 80
	}
	return int(size.Col)
}

// cut is what of line fits into width columns, without the last, behind which some terminals go on to the next line.
func cut(line string, width int) string {
	all := []rune(line)
	return string(all[:min(len(all), max(width-1, 0))])
}

func (t *teller) progress(p load.Progress) {
	live := t.width != nil
	line := p.Line(live)
	if line == "" {
		return
	}
	if live {
		line = cut(line, t.width()) // \r goes back to the beginning of one line, not of two
		if t.phase != "" && t.phase != p.Phase {
			fmt.Fprintln(t.w)
		}
		fmt.Fprintf(t.w, "\r\x1b[K%s", line)
		t.phase, t.drawn = p.Phase, true
		return
	}
	t.pending = line
	if now := time.Now(); p.Phase != t.phase || now.Sub(t.last) >= plainEvery {
		t.phase, t.last, t.pending = p.Phase, now, ""
		fmt.Fprintln(t.w, line)
	}
}

// end leaves the line that is drawn over.
func (t *teller) end() {
	if t.drawn {
		fmt.Fprintln(t.w)
	}
	if t.pending != "" {
		fmt.Fprintln(t.w, t.pending)
	}
}
