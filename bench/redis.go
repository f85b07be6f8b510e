package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What a server may send: enough for all that it says of itself, and little enough to be no danger.
const (
	bulkMax  = 64 << 20
	itemsMax = 1 << 20
	deepMax  = 8
)

// ErrRESP is an answer that is none of Redis.
var ErrRESP = errors.New("bench: not an answer of Redis")

// A RedisError is an answer that begins with "-".
type RedisError string

// Error is what the server said.
func (e RedisError) Error() string { return "bench: redis: " + string(e) }

// A pushed value comes unasked, beside the answers.
type pushed []any

// A Redis is one connection to a redis-server, for looking at it: one question at a time, of one goroutine.
type Redis struct {
	c net.Conn
	r *bufio.Reader
}

// DialRedis connects to the server at address.
func DialRedis(ctx context.Context, address string) (*Redis, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("bench: redis: %w", err)
	}
	return &Redis{c, bufio.NewReaderSize(c, 64<<10)}, nil
}

// Close ends the connection.
func (r *Redis) Close() error { return r.c.Close() }

// redisWait is how long one answer may take.
const redisWait = 30 * time.Second

// Do asks one command: the answer is a string, an int64, a []any of them, or nil. An error of the server's is a RedisError.
func (r *Redis) Do(words ...string) (any, error) {
	all, err := r.All(AppendCommand(nil, words...), 1)
	if err != nil {
		return nil, err
	}
	if err, ok := all[0].(RedisError); ok {
		return nil, fmt.Errorf("%s: %w", words[0], err)
	}
	return all[0], nil
}

// All sends commands, which AppendCommand made, at once, and reads n answers. Errors of the server's are among them.
func (r *Redis) All(commands []byte, n int) ([]any, error) {
	if err := r.c.SetDeadline(time.Now().Add(redisWait)); err != nil {
		return nil, err
	}
	if _, err := r.c.Write(commands); err != nil {
		return nil, fmt.Errorf("bench: redis: %w", err)
	}
	all := make([]any, 0, n)
	for len(all) < n {
		v, err := readValue(r.r, nil, 0)
		if err != nil {
			return nil, fmt.Errorf("bench: redis: %w", err)
		}
		all = append(all, v)
	}
	return all, nil
}

// AppendCommand appends a command as Redis reads it (RESP).
func AppendCommand(dst []byte, words ...string) []byte {
	dst = strconv.AppendInt(append(dst, '*'), int64(len(words)), 10)
	for _, w := range words {
		dst = strconv.AppendInt(append(dst, "\r\n$"...), int64(len(w)), 10)
		dst = append(append(dst, "\r\n"...), w...)
	}
	return append(dst, "\r\n"...)
}

// RedisStats is what a server says of itself.
type RedisStats struct {
	Scripts uint64 // EVALSHA that it has run
	Reads   uint64 // reads of clients' sockets that brought something: as many round trips, as all that a client sends together is read at once
	Memory  uint64 // bytes that its allocator has given out: used_memory
}

// Stats asks for them. The question is itself one of Reads, the next time.
func (r *Redis) Stats() (RedisStats, error) {
	answer, err := r.Do("INFO", "everything")
	if err != nil {
		return RedisStats{}, err
	}
	text, _ := answer.(string)
	return ParseRedisStats(text)
}

// ParseRedisStats reads the answer to INFO everything.
func ParseRedisStats(text string) (s RedisStats, err error) {
	fields := make(map[string]string)
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":"); ok {
			fields[name] = value
		}
	}
	scripts := "0" // of a command that was never called INFO says nothing
	if stat, ok := fields["cmdstat_evalsha"]; ok {
		calls, _, _ := strings.Cut(stat, ",")
		scripts = strings.TrimPrefix(calls, "calls=")
	}
	for _, f := range []struct {
		to   *uint64
		text string
	}{{&s.Scripts, scripts}, {&s.Reads, fields["total_reads_processed"]}, {&s.Memory, fields["used_memory"]}} {
		n, wrong := strconv.ParseUint(f.text, 10, 64)
		*f.to, err = n, errors.Join(err, wrong)
	}
	if err != nil {
		return RedisStats{}, fmt.Errorf("bench: redis: INFO: %w", err)
	}
	return s, nil
}

// loggedMax is how many commands a log has room for.
const loggedMax = 1 << 17

// Log makes the server remember each command that it is asked from now on.
func (r *Redis) Log() error {
	for _, words := range [][]string{
		{"CONFIG", "SET", "slowlog-log-slower-than", "0"}, {"CONFIG", "SET", "slowlog-max-len", strconv.Itoa(loggedMax)}, {"SLOWLOG", "RESET"},
	} {
		if _, err := r.Do(words...); err != nil {
			return err
		}
	}
	return nil
}

// Logged are the commands since Log, each in words of which the long ones are cut, without those of r. An error says that there were
// more than the log has room for.
func (r *Redis) Logged() ([][]string, error) {
	answer, err := r.Do("SLOWLOG", "GET", "-1")
	if err != nil {
		return nil, err
	}
	entries, _ := answer.([]any)
	if len(entries) >= loggedMax {
		return nil, fmt.Errorf("bench: redis: more than %d commands in its log", loggedMax)
	}
	var all [][]string
	own := r.c.LocalAddr().String()
	for _, e := range slices.Backward(entries) { // the latest comes first
		entry, _ := e.([]any) // number, time, duration, words, client's address, client's name
		if len(entry) < 5 {
			return nil, ErrRESP
		}
		said, _ := entry[3].([]any)
		if from, _ := entry[4].(string); from == own {
			continue
		}
		words := make([]string, len(said))
		for i, w := range said {
			words[i], _ = w.(string)
		}
		all = append(all, words)
	}
	return all, nil
}

// readValue reads one value (RESP2 or RESP3) and, unless raw is nil, appends its bytes to raw.
func readValue(r *bufio.Reader, raw *[]byte, deep int) (any, error) {
	line, err := readLine(r, raw)
	if err != nil {
		return nil, err
	}
	if len(line) == 0 || deep > deepMax {
		return nil, ErrRESP
	}
	switch kind, rest := line[0], line[1:]; kind {
	case '+', ',', '(', '#':
		return rest, nil
	case '-':
		return RedisError(rest), nil
	case '_':
		return nil, nil
	case ':':
		return strconv.ParseInt(rest, 10, 64)
	case '$', '=', '!':
		return readBulk(r, raw, rest)
	case '*', '~', '>':
		items, err := readItems(r, raw, rest, 1, deep)
		if kind == '>' {
			return pushed(items), err
		}
		return items, err
	case '%':
		return readItems(r, raw, rest, 2, deep)
	case '|': // what is said about the value that follows
		if _, err := readItems(r, raw, rest, 2, deep); err != nil {
			return nil, err
		}
		return readValue(r, raw, deep+1)
	}
	return nil, ErrRESP
}

// readLine reads to the next CRLF, which is not in the answer.
func readLine(r *bufio.Reader, raw *[]byte) (string, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	if raw != nil {
		*raw = append(*raw, line...)
	}
	if len(line) < 2 || line[len(line)-2] != '\r' {
		return "", ErrRESP
	}
	return string(line[:len(line)-2]), nil
}

func readLength(text string, most int) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < -1 || n > most {
		return 0, ErrRESP
	}
	return n, nil
}

func readBulk(r *bufio.Reader, raw *[]byte, length string) (any, error) {
	n, err := readLength(length, bulkMax)
	if err != nil || n < 0 {
		return nil, err
	}
	b := make([]byte, n+2)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	if raw != nil {
		*raw = append(*raw, b...)
	}
	if string(b[n:]) != "\r\n" {
		return nil, ErrRESP
	}
	return string(b[:n]), nil
}

func readItems(r *bufio.Reader, raw *[]byte, length string, each, deep int) ([]any, error) {
	n, err := readLength(length, min(itemsMax, math.MaxInt/each))
	if err != nil || n < 0 {
		return nil, err
	}
	items := make([]any, 0, min(n*each, 1024))
	for range n * each {
		v, err := readValue(r, raw, deep+1)
		if err != nil {
			return nil, err
		}
		items = append(items, v)
	}
	return items, nil
}
