package handshake

import (
	"strconv"
	"strings"
	"time"

	"ticketgate/limiter"
)

// The fields of draft-ietf-httpapi-ratelimit-headers: what the limit is, and what is left of it.

func policyOf(t *limiter.Tickets) string {
	return `"tickets";q=` + strconv.FormatUint(t.Rate.N, 10) + ";w=" + strconv.FormatInt(int64(t.Rate.Per/time.Second), 10)
}

func remaining(limit string, left uint64, seconds int) string {
	return `"` + limit + `";r=` + strconv.FormatUint(left, 10) + ";t=" + strconv.Itoa(seconds)
}

// ceilSeconds is never earlier than d.
func ceilSeconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// perPeriod writes a rate in words: "10 per 1 minute".
func perPeriod(r limiter.Rate) string {
	n, period, _ := strings.Cut(r.String(), "/")
	digits := len(period) - len(strings.TrimLeft(period, "0123456789"))
	return n + " per " + period[:digits] + " " + period[digits:]
}

// The decisions of a limit, as the metric calls them.
func decision(ok, hard bool) string {
	switch {
	case ok:
		return "allow"
	case hard:
		return "refuse"
	}
	return "soft"
}
