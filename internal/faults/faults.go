// Package faults breaks things where an exam asks for it. A build with the tag "faults" panics at every nth call of Point for
// a kind, as the environment says; in any other build Point is nothing, and costs nothing.
package faults

// A Kind is what is hit. Each is counted by itself.
type Kind uint8

// The kinds, with their names in the environment.
const (
	Message Kind = iota // "message": a message from a client begins
	Head                // "head": the head of an upgrade request is whole and right
	Join                // "join": a stream is asked, after the ticket was spent
	Ticket              // "ticket": a request to the handshake API
	kinds
)
