package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"ticketgate/bench"
	loadtool "ticketgate/bench/load"
)

const (
	clientSockets = 100
	clientTime    = time.Second // of a round
	clientIdle    = 15000       // sockets without traffic
	clientIdles   = 3           // clients that hold them, one after the other
	clientBytes   = 600         // of a client's memory that an idle socket may take
	clientLeast   = 1.0         // times the messages of epollclient, from the same processor time
)

// A clientCell is one load of the load tool itself.
type clientCell struct {
	payload, inFlight int
	alone             bool // the client has its core for itself; else another program takes half of it
}

func (c clientCell) String() string {
	return fmt.Sprintf("%d sockets, %d B, %d in flight", clientSockets, c.payload, c.inFlight)
}

// clientCells are the loads that o measures. What check compares is a client that is slower than its server. One that is faster wakes for
// every answer, the faster the oftener: what it takes then says as much about the server, and who has the machine besides.
func (o options) clientCells() (all []clientCell) {
	for _, alone := range []bool{false, true} {
		for _, payload := range []int{32, 1024} {
			for _, inFlight := range []int{1, burst} {
				if !alone || !o.check {
					all = append(all, clientCell{payload, inFlight, alone})
				}
			}
		}
	}
	return all
}

// A clientRound is what one client did in one round.
type clientRound struct {
	messages uint64
	cpu      time.Duration
	took     time.Duration
}

// measured says what c lacks.
func (c clientRound) measured() error {
	if c.messages == 0 || c.cpu <= 0 || c.took <= 0 {
		return fmt.Errorf("%w: %d messages in %s, %s of processor time", errUnmeasured, c.messages, c.took, c.cpu)
	}
	return nil
}

// perMessage is its processor time, µs.
func (c clientRound) perMessage() float64 {
	return float64(c.cpu.Nanoseconds()) / 1e3 / float64(c.messages)
}

// client measures the load tool: what a message costs `ticketgate bench echo --closed`, next to a program that only sends the same bytes
// again when as many have come back, and what an idle socket takes of `ticketgate bench connect`.
func client(r *runner) (_ *section, err error) {
	defer func() { err = errors.Join(err, r.end()) }()
	server, address, err := r.peer(r.serverCore, "wsecho")
	if err != nil {
		return nil, err
	}
	cells := r.clientCells()
	var ours, bare [][]clientRound
	for _, c := range cells {
		r.say("client: %s, a core to itself: %v", c, c.alone)
		a, b, err := r.clientRounds(address, c)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c, err)
		}
		ours, bare = append(ours, a), append(bare, b)
	}
	s := clientSection(cells, ours, bare)
	n := min(clientIdle, r.files-filesBeside-lanes)
	var idle []float64
	for range clientIdles {
		if err := r.quiet(server.Process); err != nil { // it has closed the sockets of the client before
			return nil, err
		}
		r.say("client: %d idle sockets", n)
		res, err := r.loadTool(loadtool.Settings{Verb: loadtool.Connect, Plain: "ws://" + address + "/", Sockets: n, Duration: time.Second, Lanes: lanes, InFlight: 1, Procs: 1, Seed: 1})
		if err != nil {
			return nil, err
		}
		each, err := perSocketOf(res)
		if err != nil {
			return nil, err
		}
		idle = append(idle, each)
	}
	s.clientIdle(n, bench.SpreadOf(idle))
	return s, nil
}

// clientRounds measures both clients in turns.
func (r *runner) clientRounds(address string, c clientCell) (ours, bare []clientRound, err error) {
	if !c.alone {
		spin, _, err := r.peer(r.clientCore, "spin")
		if err != nil {
			return nil, nil, err
		}
		defer func() { err = errors.Join(err, spin.Stop()) }()
	}
	for range r.rounds {
		one, err := r.loadClient(address, c)
		if err != nil {
			return nil, nil, err
		}
		floor, err := r.bareClient(address, c)
		if err != nil {
			return nil, nil, fmt.Errorf("epollclient: %w", err)
		}
		ours, bare = append(ours, one), append(bare, floor)
	}
	return ours, bare, nil
}

// errUnmeasured is a figure that is not there: as 0 it would meet every goal.
var errUnmeasured = errors.New("this was not measured")

// perSocketOf is what an idle socket took of the load tool.
func perSocketOf(r *loadtool.Result) (float64, error) {
	if r.Client.PerSocket <= 0 {
		return 0, fmt.Errorf("%w: %g B a socket of the load tool", errUnmeasured, r.Client.PerSocket)
	}
	return r.Client.PerSocket, nil
}

// clientIdle shows what each of n sockets without traffic takes.
func (s *section) clientIdle(n int, each bench.Spread) {
	s.tables[0].Lines = append(s.tables[0].Lines, fmt.Sprintf("Idle: %s sockets of `ticketgate bench connect --plain` take %s B of its resident memory each, in %d processes one after the other.", whole(n), each, clientIdles))
	s.bounded("Client, idle: bytes a socket", each, clientBytes)
	s.goal("Load tool: an idle socket, user space", fmt.Sprintf("at most %d B", clientBytes), each.String()+" B")
}

// loadTool runs the load tool, whose workers share this process's core.
func (r *runner) loadTool(s loadtool.Settings) (*loadtool.Result, error) {
	res, err := loadtool.Run(r.ctx, s, loadtool.Env{Tool: "bench/cmd", Worker: func() *exec.Cmd { return exec.Command(r.program, "bench", "worker") }})
	if err != nil {
		return nil, err
	}
	if res.Verdict == loadtool.Interrupted {
		return nil, r.ctx.Err()
	}
	return res, sound(res, s.Sockets)
}

// sound says what keeps r from being a figure of so many sockets. INVALID does not: that is about who is slower, which is what is asked.
func sound(r *loadtool.Result, sockets int) error {
	if r.Verdict == loadtool.Fail || len(r.Broken) > 0 || len(r.Run.Errors) > 0 || r.Opening.Opened < uint64(sockets) {
		return fmt.Errorf("the load tool had errors: %s", strings.Join(r.Lines(), "; "))
	}
	return nil
}

func (r *runner) loadClient(address string, c clientCell) (clientRound, error) {
	res, err := r.loadTool(loadtool.Settings{Verb: loadtool.Echo, Plain: "ws://" + address + "/", Sockets: clientSockets, Size: c.payload, InFlight: c.inFlight,
		Duration: clientTime, Settle: time.Second, Lanes: lanes, Procs: 1, Seed: 1})
	if err != nil {
		return clientRound{}, err
	}
	return clientRoundOf(res)
}

// clientRoundOf is what the load tool did.
func clientRoundOf(r *loadtool.Result) (clientRound, error) {
	one := clientRound{r.Run.Done, r.Client.CPU, r.Run.Took}
	return one, one.measured()
}

func (r *runner) bareClient(address string, c clientCell) (clientRound, error) {
	out, err := exec.CommandContext(r.ctx, filepath.Join(r.dir, "epollclient"), "-address", address, "-sockets", fmt.Sprint(clientSockets),
		"-bytes", fmt.Sprint(c.payload), "-in-flight", fmt.Sprint(c.inFlight), "-for", clientTime.String()).Output()
	if err != nil {
		return clientRound{}, err
	}
	return parseBareClient(out)
}

// parseBareClient reads the line that epollclient prints.
func parseBareClient(line []byte) (clientRound, error) {
	var said struct {
		Messages uint64        `json:"messages"`
		Seconds  float64       `json:"seconds"`
		CPU      time.Duration `json:"cpu_ns"`
	}
	if err := json.Unmarshal(line, &said); err != nil {
		return clientRound{}, fmt.Errorf("%q: %w", line, err)
	}
	one := clientRound{said.Messages, said.CPU, time.Duration(said.Seconds * float64(time.Second))}
	return one, one.measured()
}

// clientSection shows the rounds of each of cells.
func clientSection(cells []clientCell, ours, bare [][]clientRound) *section {
	t := &bench.Table{
		Title: "The load tool itself",
		About: fmt.Sprintf("`ticketgate bench echo --closed` with one process, and `epollclient`, in turns on the same core, %s a round, against `wsecho` on the other. Both send masked frames that were made before, and as many again as answers came, with one write; the load tool does that for several sockets in one system call where it may (io_uring). "+
			"The load tool compares every byte of every answer, counts latencies and reports four times a second; epollclient counts bytes. What is compared is processor time of the client for a message, that of all its threads, while another program takes half of the client's core: so it is the client that is slower, and some answers wait whenever it looks. "+
			"With a core to itself a client is about as fast as the server here, wakes for few answers at a time, and the more often the faster it is: those rows are for comparison.", clientTime),
		Head: []string{"bytes", "in flight", "a core to itself", "ticketgate bench, CPU µs/message", "messages a second of CPU", "its core", "epollclient, CPU µs/message", "messages a second of CPU", "its core", "messages a core, times epollclient's"},
	}
	s := &section{tables: []*bench.Table{t}}
	over := func(all []clientRound, f func(clientRound) float64) bench.Spread {
		var v []float64
		for _, one := range all {
			v = append(v, f(one))
		}
		return bench.SpreadOf(v)
	}
	cost := func(all []clientRound) []string {
		us := over(all, clientRound.perMessage)
		core := over(all, func(c clientRound) float64 { return float64(c.cpu) / float64(c.took) })
		return []string{us.String(), bench.Number(1e6 / us.Median), fmt.Sprintf("%.0f %%", 100*core.Median)}
	}
	var worst [2]bench.Spread // of the shared core, of one to itself
	var where [2]string
	for i, c := range cells {
		var more, less []float64
		for j := range min(len(ours[i]), len(bare[i])) {
			more = append(more, bare[i][j].perMessage()/ours[i][j].perMessage())
			less = append(less, ours[i][j].perMessage()/bare[i][j].perMessage())
		}
		times, kind, alone := bench.SpreadOf(more), 0, "no"
		if c.alone {
			kind, alone = 1, "yes"
		} else {
			s.bounded("Client, "+c.String()+": CPU against epollclient", bench.SpreadOf(less), 1/clientLeast)
		}
		if where[kind] == "" || times.Median < worst[kind].Median {
			worst[kind], where[kind] = times, c.String()
		}
		row := append([]string{whole(c.payload), fmt.Sprint(c.inFlight), alone}, cost(ours[i])...)
		t.Rows = append(t.Rows, append(append(row, cost(bare[i])...), times.String()))
	}
	measured := fmt.Sprintf("%s at worst (%s)", worst[0], where[0])
	if where[1] != "" {
		measured += fmt.Sprintf("; with a core to itself %s (%s)", worst[1], where[1])
	}
	s.goal("Load tool: messages a second of a core, against epollclient", fmt.Sprintf("at least %.2f times", clientLeast), measured)
	return s
}
