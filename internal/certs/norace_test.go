//go:build !race

package certs_test

// slowed: see race_test.go.
const slowed = 1
