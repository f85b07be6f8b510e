package load

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"ticketgate/bench"
)

// resultVersion is that of Result's JSON form. Another one is not read.
const resultVersion = 2

// Verdicts.
const (
	Pass    = "PASS"    // every requirement was met
	Fail    = "FAIL"    // one was not, or sockets were lost, or nothing was done: Result.Why says it
	Invalid = "INVALID" // what was measured is the client, or something else that is not the server
	Done    = "DONE"    // there were no requirements, and nothing failed

	Interrupted = "INTERRUPTED" // it was ended before its time
)

// A Result is what came of a run. Times in it are nanoseconds, sizes bytes, shares 0 to 1.
type Result struct {
	Version  int           `json:"version"`
	Tool     string        `json:"tool"`
	Command  []string      `json:"command"`
	Started  time.Time     `json:"started"`
	Took     time.Duration `json:"took"`
	Host     HostInfo      `json:"host"`
	Settings Settings      `json:"settings"`
	Notes    []string      `json:"notes,omitempty"` // what a reader has to know besides

	Verdict string   `json:"verdict"`
	Why     []string `json:"why,omitempty"`

	// Broken is what went wrong in bench's own processes while it ran: the figures are those of the others, or of a part of the time.
	Broken   []string          `json:"broken,omitempty"`
	Examples map[string]string `json:"examples,omitempty"` // the text of the first error of each class

	Opening Opening  `json:"opening"`
	Run     Running  `json:"run"`
	Series  []Point  `json:"series"`
	Client  Client   `json:"client"`
	Backend *Backend `json:"backend,omitempty"` // relay: nil for other verbs
	Server  *Server  `json:"server,omitempty"`  // nil: it is elsewhere, or nobody said which process it is
	Hostile *Attack  `json:"hostile,omitempty"`
	Kernel  *[2]Slab `json:"kernel,omitempty"` // before and at the end, of the whole machine
}

// HostInfo is where it ran.
type HostInfo struct {
	Name    string `json:"name"`
	Machine string `json:"machine,omitempty"` // tells machines of one name apart; made of /etc/machine-id, which it does not tell
	bench.Host
	Files    int               `json:"files"`              // descriptors a process may have
	Affinity []int             `json:"affinity,omitempty"` // the cores it may use
	Sysctl   map[string]string `json:"sysctl,omitempty"`   // of the kernel, as far as they matter
}

// Opening is how the sockets came about.
type Opening struct {
	Wanted int               `json:"wanted"`
	Opened uint64            `json:"opened"`         // open when the run began
	Lost   uint64            `json:"lost,omitempty"` // and those that were, but not any more
	Took   time.Duration     `json:"took"`
	Errors map[string]uint64 `json:"errors,omitempty"`
	Ticket *Latency          `json:"ticket,omitempty"`
	Open   *Latency          `json:"open,omitempty"`
	// Of a ramp: how long after it was due each was begun, and the share of those begun more than 10 ms after.
	Schedule  *Latency `json:"schedule,omitempty"`
	LateShare float64  `json:"late_share,omitempty"`
	// Busiest is the share of its core that a client process used or waited for while it opened its sockets, of that which did the most.
	// Full: the server had no processor left meanwhile.
	Busiest float64 `json:"busy,omitempty"`
	Full    bool    `json:"server_full,omitempty"`
}

// Running is the run itself.
type Running struct {
	Took       time.Duration     `json:"took"`
	Counts                       // of the run alone, at its end
	After      uint64            `json:"after,omitempty"` // operations done after its end, while answers were awaited
	Held       int               `json:"held"`            // sockets open at its end
	Rate       float64           `json:"rate"`            // operations done a second
	Wanted     float64           `json:"wanted"`          // what the schedule asks for; 0: closed loop
	Errors     map[string]uint64 `json:"errors,omitempty"`
	ErrorShare float64           `json:"error_share"` // of the operations that began or failed
	LateShare  float64           `json:"late_share"`
	Latency    *Latency          `json:"latency,omitempty"`
	Ticket     *Latency          `json:"ticket,omitempty"`
	Open       *Latency          `json:"open,omitempty"`
	In         *Latency          `json:"in,omitempty"`
	Out        *Latency          `json:"out,omitempty"`
	Schedule   *Latency          `json:"schedule,omitempty"`
	Lag        *Lag              `json:"lag,omitempty"` // without due times
}

// Latency is a distribution.
type Latency struct {
	Count uint64        `json:"count"`
	Mean  time.Duration `json:"mean"`
	Min   time.Duration `json:"min"`
	P50   time.Duration `json:"p50"`
	P90   time.Duration `json:"p90"`
	P99   time.Duration `json:"p99"`
	P999  time.Duration `json:"p999"`
	P9999 time.Duration `json:"p9999"`
	Max   time.Duration `json:"max"`
	HDR   string        `json:"hdr"` // all of it, in HdrHistogram's compressed form, base64; nanoseconds
}

func latencyOf(h *hdrhistogram.Histogram) (*Latency, error) {
	if h == nil || h.TotalCount() == 0 {
		return nil, nil //nolint:nilnil // nothing was measured, which is no error
	}
	b, err := encode(h)
	if err != nil {
		return nil, err
	}
	at := func(p float64) time.Duration { return time.Duration(h.ValueAtPercentile(p)) }
	return &Latency{Count: uint64(h.TotalCount()), Mean: time.Duration(h.Mean()), Min: time.Duration(h.Min()), P50: at(50), P90: at(90), P99: at(99),
		P999: at(99.9), P9999: at(99.99), Max: time.Duration(h.Max()), HDR: b}, nil
}

// hist is the distribution that l has written down.
func (l *Latency) hist() (*hdrhistogram.Histogram, error) {
	h, err := hdrhistogram.Decode([]byte(l.HDR))
	if err != nil {
		return nil, fmt.Errorf("histogram: %w", err)
	}
	return h, nil
}

// A Point is one moment of a run, or what has come since the point before it.
type Point struct {
	At       time.Duration `json:"at"`    // since the sockets began to be opened
	Phase    string        `json:"phase"` // open or run
	Open     int           `json:"open"`  // sockets
	Begun    uint64        `json:"begun"`
	Done     uint64        `json:"done"`
	Errors   uint64        `json:"errors"`
	Late     uint64        `json:"late"`
	Seconds  float64       `json:"seconds"` // since the point before
	P50      time.Duration `json:"p50,omitempty"`
	P99      time.Duration `json:"p99,omitempty"`
	Max      time.Duration `json:"max,omitempty"`
	Client   float64       `json:"client"`           // cores that the client used
	Server   float64       `json:"server,omitempty"` // and the server
	RSS      int64         `json:"rss,omitempty"`    // of the server
	SlabSize int64         `json:"slab,omitempty"`   // of the machine

	ClientRSS int64 `json:"client_rss,omitempty"` // of all workers

	halves int // while points are put together: of how many
}

// Client is what the load itself took.
type Client struct {
	Processes int           `json:"processes"`
	CPU       time.Duration `json:"cpu"`  // in the run
	Busiest   float64       `json:"busy"` // the share of its core that the busiest worker used or waited for
	Late      float64       `json:"late"` // the share of late operations of the worker that had the most
	RSS       int64         `json:"rss"`
	// PerSocket is the growth of resident memory from before the first socket to the end, a socket.
	PerSocket float64 `json:"per_socket,omitempty"`
}

// Backend is what the processes took that bench plays the relay's backend with. It has no part in Client.
type Backend struct {
	Processes int               `json:"processes"`
	CPU       time.Duration     `json:"cpu"`  // in the run
	Busiest   float64           `json:"busy"` // the share of its core that the busiest of them used or waited for
	Errors    map[string]uint64 `json:"errors,omitempty"`
}

// Server is what was seen of the server's processes.
type Server struct {
	PIDs      []int         `json:"pids"`
	CPU       time.Duration `json:"cpu"`              // in the run
	Cores     float64       `json:"cores"`            // used in the run, on the average
	May       int           `json:"may,omitempty"`    // cores that it may run on; 0: not known
	Thread    float64       `json:"thread,omitempty"` // the share of the run that its busiest thread ran or was ready to run; 0: not known
	PerDone   time.Duration `json:"per_done,omitempty"`
	Gone      string        `json:"gone,omitempty"` // why it was not seen to the end: all else is what was seen before
	Before    int64         `json:"before"`         // resident memory before the first socket
	Full      int64         `json:"full"`           // when all were open
	After     int64         `json:"after"`          // at the end of the run
	Most      int64         `json:"most"`           // the most of all points
	PerSocket float64       `json:"per_socket,omitempty"`
}

// Slab is the kernel's memory at one moment.
type Slab struct {
	Slabs int64 `json:"slabs"` // 0: this kernel does not tell
	TCP   int64 `json:"tcp"`   // data in sockets' buffers
	Used  int64 `json:"used"`  // all memory that is neither free nor page cache nor a process's
}

// Attack compares honest clients before and under an attack.
type Attack struct {
	Kinds  []string `json:"kinds"`
	Before *Latency `json:"before"`
	Under  *Latency `json:"under"`
	CutOff uint64   `json:"cut_off"` // hostile peers that the server got rid of
	Peers  []Peers  `json:"peers,omitempty"`
}

// Peers are the hostile peers of one kind.
type Peers struct {
	Kind   string            `json:"kind"`
	Came   uint64            `json:"came"` // that were let in, or connected where they come without a ticket
	Open   uint64            `json:"open"` // at the end
	CutOff uint64            `json:"cut_off"`
	Errors map[string]uint64 `json:"errors,omitempty"`
}

// learn keeps the first example of each class.
func (r *Result) learn(examples map[string]string) {
	for class, text := range examples {
		if r.Examples == nil {
			r.Examples = make(map[string]string)
		}
		if _, ok := r.Examples[class]; !ok {
			r.Examples[class] = text
		}
	}
}

// WriteTo writes r as JSON.
func (r *Result) WriteTo(w io.Writer) (int64, error) {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return 0, err
	}
	n, err := w.Write(append(b, '\n'))
	return int64(n), err
}

// ErrResult is a file that no bench has written.
var ErrResult = errors.New("this is not the JSON of a bench run")

// ReadResult reads what WriteTo wrote.
func ReadResult(in io.Reader) (*Result, error) {
	var r Result
	d := json.NewDecoder(in)
	if err := d.Decode(&r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrResult, err)
	}
	if r.Version != resultVersion || r.Settings.Verb == "" {
		return nil, fmt.Errorf("%w of version %d", ErrResult, resultVersion)
	}
	return &r, nil
}
