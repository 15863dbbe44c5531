"Lines that a type checker must report: each one marked, and no other."
import robust_smooth as rs

noise = rs.Gaussian(sgima=0.5) # wrong: no such keyword
other = rs.Gausian(sigma=0.5) # wrong: no such name
record = rs.load("digits.votes")
votes = record.certify("l2", methd=3, alpha="small") # wrong: alpha is a number
number: int = record.certify("l2") # wrong: a table is no number
tables: list[rs.Certificates] = record.certify("l1") # wrong: one norm gives one table
table: rs.Certificates = record.certify(["l1", "l2"]) # wrong: several norms give several tables
smooth = rs.Smoothed(lambda x: x, rs.Uniform(lam=1.0)).vote([0.0], draws=10) # wrong: it is called n
radii = record.certify("l2").raduis # wrong: no such field
limits = rs.bounds.binomial_lowr(9, 10, 0.001) # wrong: no such function
room = rs.gausian # wrong: no such room
