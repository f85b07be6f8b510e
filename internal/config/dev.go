package config

import (
	_ "embed"
	"fmt"
	"net"
	"strconv"

	"ticketgate/handshake/auth"
)

//go:embed dev.yaml
var devText []byte

// Dev returns the configuration of "ticketgate dev": memory store, loopback only, streams echo and clock, plan dev. It
// listens on ports base, base+1 and base+2 of 127.0.0.1; with base 0 the system chooses, and who knows the ports fills in
// the empty PublicURL and adds the demo page's origin to those of the gate. base is 0 to 65533. keys are the records of the
// keys that may ask, of product and plan "dev".
func Dev(base int, keys ...auth.Record) *Config {
	handshake, gate, admin := devAddress(base, 0), devAddress(base, 1), devAddress(base, 2)
	flags := map[string]string{
		"listen.handshake.address": handshake,
		"listen.gate.address":      gate,
		"listen.gate.public_url":   "ws://127.0.0.1",
		"listen.admin.address":     admin,
	}
	if base != 0 {
		port := strconv.Itoa(base)
		flags["listen.gate.public_url"] = "ws://" + gate
		flags["listen.gate.origins"] = "[none, http://127.0.0.1:" + port + ", http://localhost:" + port + "]"
	}
	c, err := load(source{name: "dev.yaml", text: devText}, nil, flags)
	if err != nil {
		panic(fmt.Sprintf("config: dev.yaml with base %d: %v", base, err))
	}
	if base == 0 {
		c.Listen.Gate.PublicURL = ""
	}
	c.Keys = keys
	return c
}

func devAddress(base, offset int) string {
	if base == 0 {
		offset = 0
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(base+offset))
}
