"Lines of the README, for type checkers; never run."
import numpy as np
import robust_smooth as rs

train, test = rs.data.load("digits", "train"), rs.data.load("digits", "test", subset=100)
net = rs.models.mlp(in_features=64, num_classes=10)
rs.train.fit(net, train, rs.train.NoiseAugmentation(rs.Gaussian(sigma=0.5)), epochs=40, progress=False)

model = rs.wrap(net)
smooth = rs.Smoothed(model, rs.Gaussian(sigma=0.5))
record = smooth.vote(test, n=10_000, moments=True, seed=0, batch_size=1000, progress=False)
certificates = record.certify("l2")
frame = certificates.to_frame()[["index", "label", "radius"]].head(4)
accuracy: np.ndarray = certificates.certified_accuracy(radii=[0.0, 0.25])

again: rs.Record = rs.load("digits.votes")
l1: rs.Certificates = again.certify("l1", method="higher_order")
both: list[rs.Certificates] = again.certify(["l1", "l2"], joint=True)
fine: np.ndarray = rs.check(l1)
grid = rs.RoundedGaussian(sigma=0.5, q=255)
print(rs.list_methods(noise="Gaussian", norm="l2"), rs.ABSTAIN, rs.noise.Gaussian is rs.Gaussian, rs.core.Record is rs.Record)
