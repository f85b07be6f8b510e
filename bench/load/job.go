// Package load is what `ticketgate bench` does: load for a gateway, or for any WebSocket server, from several processes, and an
// account of what came of it that does not flatter.
//
//	schedule.go   Schedule      when operations are due: latency counts from then
//	job.go        Job, Report   what a worker process is told, and what it tells
//	worker.go     Work          one process: one thread, one epoll
//	queue.go      queue         so many at once, and no faster than wanted
//	waits.go      waits         what has to end in time
//	open.go       opener        sockets through tickets
//	crowd.go      crowd         messages over sockets that are open
//	echo.go, ...                one verb each
//	procs.go      proc          the worker processes
//	run.go        Run           the processes, in step
//	account.go    Result        what they said, added up
//	server.go     watch         CPU and memory of the server
//	verdict.go    Require       PASS, FAIL, INVALID
//	interrupt.go  breakOff      what is left of a run that was ended before its time
//	host.go       HostInfo      the machine that both are on
//	reach.go      Unreachable   nobody was there
//	compare.go    Compare       two results
//	html.go       Result.HTML   one file, without anything from elsewhere
package load

import (
	"time"
)

// Verbs.
const (
	Tickets = "tickets"
	Connect = "connect"
	Echo    = "echo"
	Relay   = "relay"
	Feed    = "feed"
	Churn   = "churn"
	Soak    = "soak"
	Hostile = "hostile"

	attack  = "attack"  // a worker that plays the hostile peer
	backend = "backend" // a worker that is the relay's backend
)

// A Job is what one worker process does.
type Job struct {
	Verb   string `json:"verb"`
	Index  int    `json:"index"`  // of this worker
	Share  int    `json:"share"`  // of so many that do the same
	Seed   uint64 `json:"seed"`   // of all chance
	Thread int    `json:"thread"` // core to stay on; -1: any

	API    string `json:"api,omitempty"`    // host:port of the handshake; "": Plain
	Key    string `json:"key,omitempty"`    // API key
	Stream string `json:"stream,omitempty"` // to ask tickets for
	// Clients is how many names tickets are asked for, in turn (the key needs the delegate scope); 0: for the key's own client.
	Clients int `json:"clients,omitempty"`

	Plain  string   `json:"plain,omitempty"` // host:port of a WebSocket server that wants no tickets
	Host   string   `json:"host,omitempty"`  // its Host header
	Path   string   `json:"path,omitempty"`  // and path
	Source []string `json:"source,omitempty"`

	Sockets  int           `json:"sockets"`
	Insist   bool          `json:"insist,omitempty"` // another attempt for each that failed, until all are open
	Ramp     float64       `json:"ramp,omitempty"`   // sockets a second to open; 0: as fast as they come, Lanes at a time
	Lanes    int           `json:"lanes"`
	Schedule *Schedule     `json:"schedule,omitempty"` // open loop; nil: closed
	InFlight int           `json:"in_flight,omitempty"`
	Size     int           `json:"size,omitempty"`
	For      time.Duration `json:"for"`
	Settle   time.Duration `json:"settle"`            // how long answers are waited for at the end
	Every    time.Duration `json:"every"`             // between reports
	Timeout  time.Duration `json:"timeout,omitempty"` // of a ticket, and of connecting and upgrading; 0: none

	Attack string        `json:"attack,omitempty"`
	After  time.Duration `json:"after,omitempty"` // when the attack begins
	Listen string        `json:"listen,omitempty"`
}

// measures says that the job's latencies are somebody's.
func (j *Job) measures() bool { return j.Verb != Connect && j.Verb != attack && j.Verb != backend }

// An order is a line to a worker after its Job.
type order struct {
	Start int64 `json:"start,omitempty"` // begin the run then, on the clock of mono.System
	Stop  bool  `json:"stop,omitempty"`  // end now; in the run: begin nothing more, await answers, report, and end
}

// Phases of a worker.
const (
	phaseOpen   = "open"  // sockets are being opened
	phaseReady  = "ready" // as many as there will be are open
	phaseRun    = "run"
	phaseSettle = "settle" // the run is over, and answers are missing; its first report is what the run is judged by
	phaseDone   = "done"   // the last report
)

// A Report is a line of a worker. Counts are those since its beginning, histograms those since its last report.
type Report struct {
	Phase string        `json:"phase"`
	At    time.Duration `json:"at"`   // since the phase began; behind the run, since the run began
	Open  int           `json:"open"` // sockets; of a verb that keeps them: those of its own, and no others
	Counts
	Errors   map[string]uint64 `json:"errors,omitempty"`   // by class
	Lags     *lags             `json:"lags,omitempty"`     // of a worker without due times, since the run began
	Hists    map[string][]byte `json:"hists,omitempty"`    // by name, packed
	Examples map[string]string `json:"examples,omitempty"` // of errors by class, that are new
	Gates    []string          `json:"gates,omitempty"`    // address and port of those that tickets named, that are new
	Used     time.Duration     `json:"used"`               // processor time
	Waited   time.Duration     `json:"waited"`             // for its core
	RSS      int64             `json:"rss"`                // bytes
	Fatal    string            `json:"fatal,omitempty"`    // why it gave up
}

// Counts are what a worker has done in its run.
type Counts struct {
	Due      uint64 `json:"due"`             // operations that the schedule wanted
	Begun    uint64 `json:"begun"`           // of them begun
	Done     uint64 `json:"done"`            // and ended well
	Late     uint64 `json:"late"`            // begun more than lateAfter after they were due: the client's fault
	Received uint64 `json:"received"`        // bytes
	Pings    uint64 `json:"pings"`           // answered
	Opened   uint64 `json:"opened"`          // sockets
	Lost     uint64 `json:"lost"`            // of those that a verb keeps open
	Came     uint64 `json:"came,omitempty"`  // hostile peers that were let in, or connected where they come without a ticket
	Ahead    uint64 `json:"ahead,omitempty"` // messages of a feed that came before the time that they tell: the clocks differ
}

func (c *Counts) add(o Counts) {
	c.Due += o.Due
	c.Begun += o.Begun
	c.Done += o.Done
	c.Late += o.Late
	c.Received += o.Received
	c.Pings += o.Pings
	c.Opened += o.Opened
	c.Lost += o.Lost
	c.Ahead += o.Ahead
	c.Came += o.Came
}

func (c Counts) sub(o Counts) Counts {
	return Counts{Due: c.Due - o.Due, Begun: c.Begun - o.Begun, Done: c.Done - o.Done, Late: c.Late - o.Late, Received: c.Received - o.Received,
		Pings: c.Pings - o.Pings, Opened: c.Opened - o.Opened, Lost: c.Lost - o.Lost, Ahead: c.Ahead - o.Ahead, Came: c.Came - o.Came}
}

// Names of histograms.
const (
	histOperation = "operation" // from due to done: message and answer, ticket, cycle, message of a feed
	histTicket    = "ticket"    // POST /v1/tickets, from due
	histOpen      = "open"      // from dialling to the 101
	histSchedule  = "schedule"  // from due to begun: how far behind the client was
	histIn        = "in"        // relay: from due to the backend
	histOut       = "out"       // relay: from the backend to the client
)

// lateAfter is how long after it was due an operation may begin without being called late.
const lateAfter = 10 * time.Millisecond
