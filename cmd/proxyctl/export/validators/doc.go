// Package validators has the servers that export writes for judge what it writes:
// Caddy itself, HAProxy, and the schemas of the Gateway API. It is a module of its
// own so that none of them is a dependency of the program.
package validators
