//go:build race

package sfu

// raceEnabled: everything takes several times as long.
const raceEnabled = true
