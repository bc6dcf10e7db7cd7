"""Measure from outside what one client suffers while another one attacks the broker.

Everything here speaks AMQP to any broker, and imports nothing of amqpd. The canary (`bird`), the attacker (`attacker`)
and the broker are separate processes; `measure` starts them, and `figures` computes the results. The attacks are in
`shapes`.
"""
