//go:build !race

package redis_test

// slack multiplies what a call may take.
const slack = 1
