package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"ticketgate/bench"
)

// A cost is what one operation came to.
type cost struct {
	rate               float64 // operations a second
	commands, reads    float64 // scripts that Redis ran, and reads of its sockets, of 16 KiB at most: round trips, or more
	redis, server      float64 // processor time, µs
	median, ninetyNine time.Duration
}

// plus is the cost of both, one after the other.
func (c cost) plus(d cost) cost {
	return cost{commands: c.commands + d.commands, reads: c.reads + d.reads, redis: c.redis + d.redis, server: c.server + d.server}
}

// costs are those of the rounds.
type costs []cost

func (c costs) over(f func(cost) float64) bench.Spread {
	var all []float64
	for _, one := range c {
		all = append(all, f(one))
	}
	return bench.SpreadOf(all)
}

func (c costs) redis() bench.Spread { return c.over(func(c cost) float64 { return c.redis }) }

// core is how many operations a whole core of Redis would do.
func (c costs) core() bench.Spread { return c.over(func(c cost) float64 { return 1e6 / c.redis }) }

// against compares c with d, round by round.
func (c costs) against(d costs, f func(cost) float64) bench.Spread {
	var all []float64
	for i := range min(len(c), len(d)) {
		all = append(all, f(c[i])/f(d[i]))
	}
	return bench.SpreadOf(all)
}

// A costed is a Redis and who asks it.
type costed struct {
	log    *bench.Redis
	redis  bench.Process
	server *bench.Process // nil: this process is who asks

	questions uint64 // of our own to Redis since the last measurement began: they are reads of its sockets too
}

func (c *costed) stats() (bench.RedisStats, error) {
	c.questions++
	return c.log.Stats()
}

func (c *costed) asker() (bench.CPU, error) {
	if c.server == nil {
		return bench.OwnCPU()
	}
	return c.server.CPU()
}

// measure is what each of n operations costs that do does.
func (c *costed) measure(n int, do func() error) (cost, error) {
	one, err := c.stats()
	if err != nil {
		return cost{}, err
	}
	c.questions = 0 // one does not count itself, but two does
	asker, err1 := c.asker()
	redis, err2 := c.redis.CPU()
	began := time.Now()
	if err := errors.Join(err1, err2, do()); err != nil {
		return cost{}, err
	}
	took := time.Since(began)
	redisNow, err1 := c.redis.CPU()
	askerNow, err2 := c.asker()
	two, err3 := c.stats()
	per := func(d time.Duration) float64 { return micros(d) / float64(n) }
	return cost{
		rate:     float64(n) / took.Seconds(),
		commands: float64(two.Scripts-one.Scripts) / float64(n),
		reads:    float64(two.Reads-one.Reads-c.questions) / float64(n),
		redis:    per(redisNow.Sub(redis).Total()), server: per(askerNow.Sub(asker).Total()),
	}, errors.Join(err1, err2, err3)
}

// bareCommands are n SETs and n GETDELs of values as long as a ticket's, so many sent together.
func (c *costed) bareCommands(ctx context.Context, n, pipeline, size int) (set, getdel cost, err error) {
	value := strings.Repeat("x", size)
	all := func(command func(dst []byte, key string) []byte) func() error {
		return func() error {
			return together(ctx, 1, 0, n, pipeline, func(_ context.Context, at, some int) error {
				var b []byte
				for i := at; i < at+some; i++ {
					b = command(b, fmt.Sprintf("tg:{0000}:t:%032x", i))
				}
				answers, err := c.log.All(b, some)
				for _, a := range answers {
					if wrong, ok := a.(bench.RedisError); ok {
						err = cmp.Or(err, error(wrong))
					}
				}
				return err
			})
		}
	}
	set, err = c.measure(n, all(func(dst []byte, key string) []byte {
		return bench.AppendCommand(dst, "SET", key, value, "PX", "600000")
	}))
	if err == nil {
		getdel, err = c.measure(n, all(func(dst []byte, key string) []byte { return bench.AppendCommand(dst, "GETDEL", key) }))
	}
	return set, getdel, err
}
