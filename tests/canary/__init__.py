"""A canary beside attackers: what one client suffers while another does its worst, measured from outside.

Everything here speaks AMQP to a broker of any make and imports nothing of amqpd. The canary (`bird`), the attacker
(`attacker`) and the broker are processes of their own; `measure` sets them up, and `figures` says what came of it.
The attacks are in `shapes`.
"""
