//go:build race

package conformance

// raceEnabled: the product is built with the race detector, as the tests are.
const raceEnabled = true
