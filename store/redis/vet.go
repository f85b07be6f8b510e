package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// connect makes a link to a server, looks whether it is fit to be a primary of the store, and gives it the scripts.
func (s *Store) connect(ctx context.Context, addr string) (*link, error) {
	l, err := s.dialler.dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, l.cut)
	defer stop()
	commands := append([]rueidis.Completed{l.client.B().Info().Build()}, loading(l.client)...)
	results := l.run(s.dialler.timeout, commands...)
	text, err := results[0].ToString()
	if err == nil {
		err = s.vet(addr, parseInfo(text))
	}
	for i := 1; err == nil && i < len(results); i++ {
		err = results[i].Error()
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// loading are the commands that give a server all scripts.
func loading(c rueidis.Client) []rueidis.Completed {
	out := make([]rueidis.Completed, len(scripts))
	for i, s := range scripts {
		out[i] = c.B().ScriptLoad().Script(s.text).Build()
	}
	return out
}

// parseInfo reads the answer to INFO.
func parseInfo(text string) map[string]string {
	info := make(map[string]string)
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			info[key] = value
		}
	}
	return info
}

// vet says why a server must not be a primary of the store, and warns of what may do harm.
func (s *Store) vet(addr string, info map[string]string) error {
	major, _, _ := strings.Cut(info["redis_version"], ".")
	version, err := strconv.Atoi(major)
	policy := info["maxmemory_policy"]
	evicts := policy != "noeviction"
	switch {
	case err != nil || version < 7:
		return fmt.Errorf("its version is %q; 7.0 or later is needed", info["redis_version"])
	case info["redis_mode"] == "sentinel":
		return errors.New("it is a sentinel: write it under store.addresses, with store.sentinel.master")
	case info["cluster_enabled"] == "1" && !s.cluster:
		return errors.New("it is a node of a Redis Cluster: write some of its nodes under store.addresses")
	case info["cluster_enabled"] != "1" && s.cluster:
		return errors.New("it is no node of a Redis Cluster, as store.addresses without store.sentinel.master says")
	case info["role"] != "master":
		return errors.New("it is a replica, which takes no writes")
	case info["loading"] == "1":
		return errors.New("it is loading its data")
	case evicts && info["maxmemory"] != "0":
		return fmt.Errorf("it throws keys away when it is full (maxmemory-policy %s); set noeviction", policy)
	}
	if evicts {
		s.warn(addr, "maxmemory-policy is "+policy+": set noeviction before you set maxmemory")
	}
	if _, set := info["min_slaves_good_slaves"]; !set && info["connected_slaves"] != "0" {
		s.warn(addr, "min-replicas-to-write is not set: a primary that is cut off from its replicas goes on answering")
	}
	return nil
}

// warn writes a line, once for each server.
func (s *Store) warn(addr, what string) {
	if _, known := s.warned.LoadOrStore(addr+what, struct{}{}); !known {
		s.log.Warn("ticket store: "+what, "server", addr)
	}
}

// tellOnce is a log line that is written when it says something new.
type tellOnce struct{ said string }

func (t *tellOnce) news(text string) bool {
	news := text != t.said
	t.said = text
	return news
}

// probeEvery is how often what is down is tried; the finder asks again as often while something is.
const probeEvery = 250 * time.Millisecond
