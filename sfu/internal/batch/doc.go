// Package batch has UDP sockets for many small datagrams.
package batch
