//go:build race

package redis_test

// slack multiplies what a call may take: the race detector makes 2,000 goroutines on two cores late by themselves. What it
// must still tell apart is the second or more for which rueidis holds a call.
const slack = 3
