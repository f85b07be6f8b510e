//go:build !race

package auth_test

// welchMax is the t that chance passes once in 150,000 runs.
const welchMax = 4.5
